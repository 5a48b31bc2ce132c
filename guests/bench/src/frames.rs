//! Frames for the network of QEMU's user mode: its gateway answers echo requests at once,
//! by itself, so that the time to the answer is the guest's and the monitor's alone.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr,
};

/// The guest's address there.
const OURS: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
/// The gateway's.
const GATEWAY: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
/// Identifier of the echo requests.
const IDENTIFIER: u16 = 0x7665;

const ETHERNET: usize = 14;
/// Bytes of an ARP frame without padding.
pub const ARP: usize = ETHERNET + 28;
/// Bytes that an echo request carries.
const PAYLOAD: usize = 64;
/// Bytes of an echo request: headers of Ethernet, IPv4 and ICMP, and the payload.
pub const ECHO: usize = ETHERNET + 20 + 8 + PAYLOAD;

fn ethernet(frame: &mut [u8], from: [u8; 6], to: EthernetAddress, protocol: EthernetProtocol) {
    EthernetRepr {
        src_addr: EthernetAddress(from),
        dst_addr: to,
        ethertype: protocol,
    }
    .emit(&mut EthernetFrame::new_unchecked(frame));
}

/// Returns the question for the gateway's hardware address, which also tells it ours.
#[must_use]
pub fn arp_request(from: [u8; 6]) -> [u8; ARP] {
    let mut frame = [0; ARP];
    let broadcast = EthernetAddress::BROADCAST;
    ethernet(&mut frame, from, broadcast, EthernetProtocol::Arp);
    ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(from),
        source_protocol_addr: OURS,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: GATEWAY,
    }
    .emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
    frame
}

/// Returns the gateway's hardware address, if `frame` is its answer.
#[must_use]
pub fn arp_reply(frame: &[u8]) -> Option<[u8; 6]> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
    match ArpRepr::parse(&packet).ok()? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr,
            source_protocol_addr: GATEWAY,
            ..
        } => Some(source_hardware_addr.0),
        _ => None,
    }
}

/// Returns an echo request to the gateway, whose hardware address is `to`.
#[must_use]
pub fn echo_request(from: [u8; 6], to: [u8; 6], sequence: u16) -> [u8; ECHO] {
    let mut frame = [0; ECHO];
    ethernet(
        &mut frame,
        from,
        EthernetAddress(to),
        EthernetProtocol::Ipv4,
    );
    let checksums = ChecksumCapabilities::default();
    let echo = Icmpv4Repr::EchoRequest {
        ident: IDENTIFIER,
        seq_no: sequence,
        data: &[0x5a; PAYLOAD],
    };
    let ip = Ipv4Repr {
        src_addr: OURS,
        dst_addr: GATEWAY,
        next_header: IpProtocol::Icmp,
        payload_len: echo.buffer_len(),
        hop_limit: 64,
    };
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]);
    ip.emit(&mut packet, &checksums);
    let mut message = Icmpv4Packet::new_unchecked(packet.payload_mut());
    echo.emit(&mut message, &checksums);
    frame
}

/// Returns the sequence number, if `frame` is the answer to an echo request of ours.
#[must_use]
pub fn echo_reply(frame: &[u8]) -> Option<u16> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    let message = Icmpv4Packet::new_checked(packet.payload()).ok()?;
    match Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).ok()? {
        Icmpv4Repr::EchoReply {
            ident: IDENTIFIER,
            seq_no,
            data,
        } if data.len() == PAYLOAD => Some(seq_no),
        _ => None,
    }
}

/// Returns a frame of `LENGTH` bytes that nobody answers: its protocol (IEEE 802, local
/// experimental EtherType 1) is none that the network knows.
#[must_use]
pub fn unanswered<const LENGTH: usize>(from: [u8; 6], to: [u8; 6]) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    let protocol = EthernetProtocol::Unknown(0x88b5);
    ethernet(&mut frame, from, EthernetAddress(to), protocol);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    const THEM: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

    #[test]
    fn an_answer_to_the_question_has_the_address() {
        let mut frame = arp_request(US);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(arp_reply(&frame), None, "a question is no answer");
        // The gateway turns it around (RFC 826).
        frame[21] = 2;
        frame[22..28].copy_from_slice(&THEM);
        frame[28..32].copy_from_slice(&[10, 0, 2, 2]);
        assert_eq!(arp_reply(&frame), Some(THEM));
        frame[31] = 3;
        assert_eq!(arp_reply(&frame), None, "another host's");
        for length in 0..frame.len() {
            assert_eq!(arp_reply(&frame[..length]), None);
        }
    }

    #[test]
    fn an_echo_s_answer_is_known_by_its_sequence() {
        let mut frame = echo_request(US, THEM, 7);
        assert_eq!(frame.len(), 106);
        assert_eq!(echo_reply(&frame), None, "a request is no answer");
        // Type 0 instead of 8; the checksum's sum moves by as much (RFC 1624).
        frame[34] = 0;
        let sum = u16::from_be_bytes([frame[36], frame[37]]) + 0x0800;
        frame[36..38].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(echo_reply(&frame), Some(7));
        frame[60] ^= 1;
        assert_eq!(echo_reply(&frame), None, "its checksum is wrong");
        for length in 0..frame.len() {
            assert_eq!(echo_reply(&frame[..length]), None);
        }
    }

    #[test]
    fn nobody_knows_the_other_frames() {
        let frame = unanswered::<60>(US, THEM);
        assert_eq!(frame[..6], THEM);
        assert_eq!(frame[12..14], [0x88, 0xb5]);
        assert_eq!((arp_reply(&frame), echo_reply(&frame)), (None, None));
    }
}
