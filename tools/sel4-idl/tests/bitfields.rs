//! The bit field parser: accepted input, and places of errors.

use sel4_idl::bitfield_c;
use sel4_idl::parser::parse;

const GOOD: &str = "
base 64(49,1)
block a (low, high) {      -- order of the constructor
    field_high high 48
    padding 11
    field low 5
}
block b { field value 59 field low 5 }
tagged_union u low { tag a 1 tag b 0x2 }
base 32
block alone { field x 0b100 padding 28 }
";

#[test]
fn lays_fields_out_from_the_top() {
    let description = parse("x.bf", GOOD).unwrap();
    let [union] = &description.unions[..] else {
        panic!("one union")
    };
    let a = &union.variants[0].block;
    let high = a.field("high").unwrap();
    assert_eq!(
        (high.word, high.shift, high.width, high.high),
        (0, 16, 48, true)
    );
    assert_eq!(high.value_shift(a.base), 1);
    assert_eq!(high.sign_bit(a.base), Some(48));
    let low = a.field("low").unwrap();
    assert_eq!((low.shift, low.sign_bit(a.base)), (0, None));
    let order: Vec<&str> = a.visible_fields().map(|f| f.name.as_str()).collect();
    assert_eq!(order, ["low", "high"]);
    let [alone] = &description.blocks[..] else {
        panic!("one block outside the union")
    };
    assert_eq!(
        (alone.words, alone.fields[0].width, alone.fields[0].shift),
        (1, 4, 28)
    );
}

#[test]
fn fields_number_words_from_the_last() {
    let text = "base 64\nblock b { field first 64 field second 64 }";
    let description = parse("x.bf", text).unwrap();
    let words: Vec<usize> = description.blocks[0]
        .fields
        .iter()
        .map(|f| f.word)
        .collect();
    assert_eq!(words, [1, 0]);
}

#[test]
fn equal_input_gives_equal_output() {
    let emit = || bitfield_c::emit(&parse("x.bf", GOOD).unwrap(), "X_H");
    assert_eq!(emit(), emit());
}

/// Parses bad text. Returns the error as a user sees it.
fn error(text: &str) -> String {
    parse("bad.bf", text).unwrap_err().to_string()
}

#[test]
fn errors_name_file_and_line() {
    let cases = [
        (
            "block b { field x 64 }",
            "bad.bf:1: no `base` line before this",
        ),
        (
            "base 24",
            "bad.bf:1: a base of 24 bits; it must be 8, 16, 32 or 64",
        ),
        (
            "base 64(65,0)",
            "bad.bf:1: the base's value bits or sign flag are out of range",
        ),
        (
            "base 64\nunion u {}",
            "bad.bf:2: expected `base`, `block` or `tagged_union`, found `union`",
        ),
        (
            "base 64\nblock b {\n field x }",
            "bad.bf:3: expected a width in bits, found `}`",
        ),
        (
            "base 64\nblock b {\n fild x 64 }",
            "bad.bf:3: expected `field`, `field_high`, `padding` or `}`, found `fild`",
        ),
        (
            "base 64\nblock b {\n field x 0 }",
            "bad.bf:3: a width of 0 bits",
        ),
        (
            "base 64\nblock b {\n field x 09 }",
            "bad.bf:3: `09` is not a number",
        ),
        (
            "base 64\nblock b {\n field x 64; }",
            "bad.bf:3: unexpected character `;`",
        ),
        (
            "base 64\nblock b {\n field x 64",
            "bad.bf:3: expected `field`, `field_high`, `padding` or `}`, found the end of the file",
        ),
        (
            "base 64\n\nblock b { field x 63 }",
            "bad.bf:3: block `b` has 63 bits, which is no multiple of the base (64)",
        ),
        (
            "base 64\nblock b { padding 32\n field x 64\n padding 32 }",
            "bad.bf:3: field `x` crosses a word boundary",
        ),
        (
            "base 64\nblock b { field x 32\n field x 32 }",
            "bad.bf:3: field `x` is declared twice",
        ),
        (
            "base 64(48,0)\nblock b {\n field_high x 64 }",
            "bad.bf:3: field `x` is wider than the base's values",
        ),
        (
            "base 64\nblock b { field x 64 }\nblock b { field x 64 }",
            "bad.bf:3: block `b` is declared twice",
        ),
        (
            "base 64\nblock b (y) { field x 64 }",
            "bad.bf:2: block `b` has no field `y`",
        ),
        (
            "base 64\nblock b (x) { field x 32 field y 32 }",
            "bad.bf:2: the field order of block `b` leaves out `y`",
        ),
        (
            "base 64\nblock b (x, x) { field x 64 }",
            "bad.bf:2: field `x` is listed twice",
        ),
        (
            "base 64\ntagged_union u t {\n tag b 0 }",
            "bad.bf:3: no block `b`",
        ),
        (
            "base 64\ntagged_union u t { }",
            "bad.bf:2: tagged union `u` has no tags",
        ),
        (
            "base 64\nblock b { field t 64 }\ntagged_union u t {\n mask 4 7 tag b 0 }",
            "bad.bf:4: tags of several widths (`mask`) are not supported",
        ),
        (
            "base 64\nblock b { field x 64 }\ntagged_union u t { tag b 0 }",
            "bad.bf:3: block `b` has no tag field `t`",
        ),
        (
            "base 64\nblock b { field x 60 field t 4 }\ntagged_union u t { tag b 16 }",
            "bad.bf:3: value 16 does not fit the tag field",
        ),
        (
            "base 64\nblock b { field t 64 }\nblock c { field t 64 }\ntagged_union u t { tag b 1\n tag c 1 }",
            "bad.bf:5: tag `c` or its value 1 is used twice",
        ),
        (
            "base 64\nblock b { field t 64 }\nblock c { field t 60 padding 4 }\ntagged_union u t { tag b 1\n tag c 2 }",
            "bad.bf:5: block `c` differs in size or in its tag's place from the union's first block",
        ),
        (
            "base 64(48,0)\nblock b { field_high x 48 field t 16 }\nbase 64(40,0)\ntagged_union u t { tag b 1 }",
            "bad.bf:4: block `b` has another base",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn line_markers_move_the_position() {
    let text =
        "# 1 \"outer.bf\"\nbase 64\n# 40 \"inner.bf\" 1\n\nblock b {\n# 3 \"outer.bf\" 2\n oops }";
    assert_eq!(
        error(text),
        "outer.bf:3: expected `field`, `field_high`, `padding` or `}`, found `oops`"
    );
    assert_eq!(
        error("# 40 \"inner.bf\"\n\noops"),
        "inner.bf:41: expected `base`, `block` or `tagged_union`, found `oops`"
    );
}
