//! Names and numbers; the models of the units follow.

use super::*;

#[test]
fn the_plain_message_is_the_kernels() {
    assert_eq!(plain_message(2), (0xfee0_0000, 0x32));
}
