//! Invocations and system calls: numbering, packing, and errors.

use sel4_idl::condition::Condition;
use sel4_idl::{Options, invocation, invocation_c, invocation_rust, names, syscall};

const GENERIC: &str = r#"<api>
  <struct name="seL4_UserContext"><member name="rip"/><member name="rsp"/></struct>
  <interface name="seL4_TCB">
    <method id="TCBOne" name="One">
      <param dir="in" name="flag" type="seL4_Bool"/>
      <param dir="in" name="small" type="seL4_Uint8"/>
      <param dir="in" name="cap" type="seL4_CNode"/>
      <param dir="in" name="count" type="seL4_Word"/>
      <param dir="in" name="regs" type="seL4_UserContext"/>
      <param dir="in" name="last" type="seL4_Word"/>
    </method>
    <method id="TCBGone" name="Gone" condition="defined(CONFIG_GONE)"/>
  </interface>
</api>"#;

const ARCH: &str = r#"<api>
  <interface name="seL4_X86_IOPort">
    <method id="X86IOPortIn8" name="In8">
      <param dir="out" name="result" type="seL4_Uint8"/>
      <param dir="in" name="port" type="seL4_Uint16"/>
    </method>
  </interface>
</api>"#;

#[test]
fn rust_stubs_pack_as_the_kernel_unpacks() {
    let generic = invocation::parse("a.xml", GENERIC).unwrap();
    let arch = invocation::parse("b.xml", ARCH).unwrap();
    let text = invocation_rust::emit(&[&generic, &arch], &Options::new()).unwrap();
    // A missing method leaves no gap in the numbers.
    assert!(text.contains("pub const LABEL_TCB_ONE: u64 = 1;"));
    assert!(text.contains("pub const LABEL_X86_IO_PORT_IN8: u64 = 2;"));
    assert!(!text.contains("GONE"));
    // A boolean takes a bit, a byte the next aligned byte; capabilities take
    // no word; words from the fifth on are in the buffer.
    assert!(
        text.contains("[u64::from(flag) | (u64::from(small) << 8), count, regs.rip, regs.rsp]")
    );
    assert!(text.contains("ipc.caps_or_badges[0] = cap;"));
    assert!(text.contains("ipc.msg[4] = last;"));
    assert!(text.contains("MessageInfo::new(LABEL_TCB_ONE, 0, 1, 5)"));
    assert!(text.contains("Ok(mrs[0] as u8)"));
}

#[test]
fn a_condition_that_holds_numbers_its_method() {
    let generic = invocation::parse("a.xml", GENERIC).unwrap();
    let options = Options::from([("CONFIG_GONE".into(), "1".into())]);
    let text = invocation_rust::emit(&[&generic], &options).unwrap();
    assert!(text.contains("pub const LABEL_TCB_GONE: u64 = 2;"));
}

#[test]
fn c_enums_number_on() {
    let generic = invocation_c::emit_generic(&invocation::parse("a.xml", GENERIC).unwrap());
    assert!(generic.contains("    InvalidInvocation = 0,\n    TCBOne,\n#if defined(CONFIG_GONE)\n    TCBGone,\n#endif\n    nInvocationLabels\n"));
    let empty = invocation_c::emit_sel4_arch(&invocation::Api::default());
    assert!(empty.contains("    nSeL4ArchInvocationLabels = nInvocationLabels\n"));
    let arch = invocation_c::emit_arch(&invocation::parse("b.xml", ARCH).unwrap());
    assert!(
        arch.contains("    X86IOPortIn8 = nSeL4ArchInvocationLabels,\n    nArchInvocationLabels\n")
    );
}

#[test]
fn bad_invocations_are_refused_with_their_line() {
    let error = |text: &str| invocation::parse("bad.xml", text).unwrap_err().to_string();
    assert!(error("<api>\n<interface></api>").starts_with("bad.xml:2:"));
    assert_eq!(
        error("<api>\n<interface/></api>"),
        "bad.xml:2: `<interface>` has no `name`"
    );
    assert_eq!(
        error("<api>\n\n<other/></api>"),
        "bad.xml:3: unexpected element `other`"
    );
    let method = |param: &str| {
        error(&format!(
            "<api><interface name=\"i\"><method id=\"I\" name=\"n\">\n{param}</method></interface></api>"
        ))
    };
    assert_eq!(
        method("<param dir=\"in\" name=\"p\" type=\"odd\"/>"),
        "bad.xml:2: unknown type `odd`"
    );
    assert_eq!(
        method("<param dir=\"up\" name=\"p\" type=\"int\"/>"),
        "bad.xml:2: unknown direction `up`"
    );
    assert_eq!(
        method("<param dir=\"in\" type=\"int\"/>"),
        "bad.xml:2: `<param>` has no `name`"
    );
}

const SYSCALLS: &str = r#"<syscalls>
  <api><config><syscall name="Call"/><syscall name="NBRecv"/></config></api>
  <debug>
    <config condition="defined CONFIG_A"><syscall name="First"/></config>
    <config condition="defined CONFIG_B"><syscall name="Second"/></config>
  </debug>
</syscalls>"#;

#[test]
fn system_calls_count_down() {
    let calls = syscall::parse("s.xml", SYSCALLS).unwrap();
    let c = syscall::emit_c(&calls);
    assert!(c.contains("#define SYSCALL_MIN (-2)"));
    assert!(c.contains(
        "    SysCall = -1,\n    SysNBRecv = -2,\n#if defined(CONFIG_A)\n    SysFirst = -3,\n"
    ));
    let options = Options::from([("CONFIG_B".into(), "1".into())]);
    let rust = syscall::emit_rust(&calls, &options);
    assert!(rust.contains("pub const SYS_NB_RECV: i64 = -2;"));
    // Those of debug builds are for nobody.
    assert!(!rust.contains("FIRST") && !rust.contains("SECOND"));
}

#[test]
fn bad_system_calls_are_refused_with_their_line() {
    let error = |text: &str| syscall::parse("s.xml", text).unwrap_err().to_string();
    assert_eq!(error("<syscalls/>"), "s.xml: no system calls");
    assert_eq!(
        error("<syscalls>\n<other/></syscalls>"),
        "s.xml:2: unexpected element `other`"
    );
    assert_eq!(
        error("<syscalls><api><config>\n<syscall/></config></api></syscalls>"),
        "s.xml:2: expected `<syscall name=...>`"
    );
}

#[test]
fn conditions() {
    let options = Options::from([("CONFIG_N".into(), "2".into())]);
    let holds = |text| Condition::from_c(text).map(|condition| condition.holds(&options));
    assert_eq!(holds(""), Ok(true));
    assert_eq!(holds("defined CONFIG_N"), Ok(true));
    assert_eq!(holds("defined(CONFIG_M)"), Ok(false));
    assert_eq!(holds("CONFIG_N > 1"), Ok(true));
    assert_eq!(holds("CONFIG_N > 2"), Ok(false));
    assert_eq!(holds("CONFIG_M > 0"), Ok(false));
    for odd in [
        "CONFIG_N == 1",
        "defined(CONFIG_N",
        "!defined(CONFIG_N)",
        "CONFIG_N",
    ] {
        assert!(holds(odd).is_err(), "{odd}");
    }
}

#[test]
fn conditions_in_elements_are_those_in_c() {
    let condition = |content: &str| {
        let method = format!("<method id=\"I\" name=\"n\">{content}</method>");
        let text = format!("<api><interface name=\"i\">{method}</interface></api>");
        let api = invocation::parse("c.xml", &text).unwrap();
        api.methods[0].condition.clone()
    };
    let several = condition(
        "<condition><and><config var=\"A\"/><not><or><config var=\"B\"/><config var=\"C\"/>\
         </or></not></and></condition>",
    );
    assert_eq!(
        several.to_string(),
        "(defined(A) && !((defined(B) || defined(C))))"
    );
    for (options, holds) in [(&["A"][..], true), (&["A", "C"], false), (&[], false)] {
        let options: Options = options
            .iter()
            .map(|o| (o.to_string(), "1".into()))
            .collect();
        assert_eq!(several.holds(&options), holds, "{options:?}");
    }
    assert_eq!(condition(""), Condition::ALWAYS);
    assert!(condition("").holds(&Options::new()));
}

#[test]
fn system_calls_of_newer_descriptions() {
    let text = r#"<syscalls>
      <api-master><config><syscall name="Call"/><syscall name="Reply"/></config></api-master>
      <api-mcs><config><syscall name="Call"/><syscall name="Wait"/></config></api-mcs>
    </syscalls>"#;
    let calls = syscall::parse("s.xml", text).unwrap();
    assert_eq!(calls.of(&Options::new()), ["Call", "Reply"]);
    let mcs = Options::from([("CONFIG_KERNEL_MCS".into(), "1".into())]);
    assert_eq!(calls.of(&mcs), ["Call", "Wait"]);
    let twice = text.replace("api-mcs", "api-master");
    let error = syscall::parse("s.xml", &twice).unwrap_err().to_string();
    assert_eq!(error, "s.xml:3: the same list of calls again");
}

#[test]
fn names_follow_rusts_style() {
    for (kernel, rust) in [
        ("seL4_CNode", "cnode"),
        ("seL4_X86_IOPageTable", "x86_io_page_table"),
        ("GetMSI", "get_msi"),
        ("SetMCPriority", "set_mc_priority"),
        ("In8", "in8"),
        ("capPTBasePtr", "cap_pt_base_ptr"),
        ("type", "type_"),
    ] {
        assert_eq!(names::snake(kernel), rust);
    }
    assert_eq!(names::camel("x86_irq_state"), "X86IrqState");
    assert_eq!(names::constant("VMFault"), "VM_FAULT");
}
