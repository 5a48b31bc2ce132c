//! Whether the time stamp counter, by which all deadlines are told, keeps its rate.

/// CPUID leaf and bits: a hypervisor is there (leaf 1, ECX); the counter runs at one rate in
/// all states of the CPU (leaf 0x80000007, EDX; Intel SDM vol. 3, section 19.17.1).
const FEATURES: u32 = 1;
const HYPERVISOR: u32 = 1 << 31;
const HIGHEST_EXTENDED: u32 = 0x8000_0000;
const POWER: u32 = 0x8000_0007;
const INVARIANT: u32 = 1 << 8;

/// Returns whether the counter keeps its rate: the CPU says so, or a hypervisor makes it. QEMU
/// without KVM does not set the bit, and its counter is the host's clock at one rate.
///
/// `cpuid` returns EAX to EDX of a leaf.
pub fn keeps_rate(cpuid: impl Fn(u32) -> [u32; 4]) -> bool {
    let [highest, ..] = cpuid(HIGHEST_EXTENDED);
    let [.., features, _] = cpuid(FEATURES);
    let [.., power] = cpuid(POWER);
    highest >= POWER && power & INVARIANT != 0 || features & HYPERVISOR != 0
}

#[cfg(test)]
mod tests {
    use super::keeps_rate;

    #[test]
    fn the_cpu_says_so_or_a_hypervisor_is_there() {
        let cpu = |highest, hypervisor: u32, invariant: u32| {
            keeps_rate(move |leaf| match leaf {
                1 => [0, 0, hypervisor << 31, 0],
                0x8000_0000 => [highest, 0, 0, 0],
                0x8000_0007 => [0, 0, 0, invariant << 8],
                _ => [u32::MAX; 4],
            })
        };
        for (highest, hypervisor, invariant, keeps) in [
            (0x8000_0008, 0, 1, true),
            (0x8000_0008, 1, 0, true),
            (0x8000_0008, 0, 0, false),
            // A CPU answers a leaf that it has not with the last that it has.
            (0x8000_0004, 0, 1, false),
        ] {
            assert_eq!(cpu(highest, hypervisor, invariant), keeps);
        }
    }
}
