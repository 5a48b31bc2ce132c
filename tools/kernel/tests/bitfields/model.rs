//! The meaning of a description, worked out bit by bit.

/// A block as its accessors see it: alone, or under a union's tag.
#[derive(Clone, Debug)]
pub struct Type {
    /// The block's name.
    pub block: String,
    /// The union's name, the tag field and the tag's value.
    pub union: Option<(String, usize, u64)>,
    /// Bits in a word.
    pub word_bits: usize,
    /// Significant bits of a full value.
    pub value_bits: usize,
    /// Whether values of high fields are sign-extended.
    pub sign: bool,
    /// For each bit from bit 0 of word 0 up: the field it belongs to and its
    /// number in that field.
    pub bits: Vec<Option<(usize, usize)>>,
    /// Name, width, high.
    pub fields: Vec<(String, usize, bool)>,
    /// Fields in the order of a constructor's parameters.
    pub order: Vec<usize>,
}

impl Type {
    /// Fields that have accessors and parameters: all but a union's tag.
    pub fn own_fields(&self) -> Vec<usize> {
        let tag = self.union.as_ref().map(|u| u.1);
        self.order
            .iter()
            .copied()
            .filter(|&f| Some(f) != tag)
            .collect()
    }

    /// Returns the stored bits of field `f` for each of a few patterns.
    pub fn patterns(&self, f: usize) -> Vec<u64> {
        let ones = (0..self.fields[f].1).fold(0u64, |v, bit| v | 1 << bit);
        let top = 1 << (self.fields[f].1 - 1);
        vec![0, ones, 0xa5a5_5a5a_c3c3_3c3c & ones, top, 1]
    }

    /// Returns the value that accessors take and return for these stored bits.
    pub fn value(&self, f: usize, stored: u64) -> u64 {
        let (_, width, high) = self.fields[f];
        if !high {
            return stored;
        }
        let low = self.value_bits - width;
        let mut value = 0;
        for bit in 0..self.word_bits {
            let from = if bit >= self.value_bits && self.sign {
                self.value_bits - 1
            } else {
                bit
            };
            let set = from >= low && from < self.value_bits && stored >> (from - low) & 1 == 1;
            value |= u64::from(set) << bit;
        }
        value
    }

    /// Returns a value that does not fit field `f`, if there is one.
    pub fn unfit(&self, f: usize) -> Option<u64> {
        let (_, width, high) = self.fields[f];
        if high {
            (self.value_bits > width).then(|| 1 << (self.value_bits - width - 1))
        } else {
            (self.word_bits > width).then(|| 1 << width)
        }
    }

    /// Returns `words` with the stored bits of field `f` replaced.
    pub fn store(&self, words: &[u64], f: usize, stored: u64) -> Vec<u64> {
        let mut words = words.to_vec();
        for (place, owner) in self.bits.iter().enumerate() {
            let Some((field, number)) = *owner else {
                continue;
            };
            if field == f {
                let (word, bit) = (place / self.word_bits, place % self.word_bits);
                words[word] = words[word] & !(1 << bit) | (stored >> number & 1) << bit;
            }
        }
        words
    }

    /// Returns the words that are all zeros or all ones but for the tag, which
    /// is right.
    pub fn background(&self, ones: bool) -> Vec<u64> {
        let word = if ones {
            u64::MAX >> (64 - self.word_bits)
        } else {
            0
        };
        let words = vec![word; self.bits.len() / self.word_bits];
        match self.union {
            Some((_, field, value)) => self.store(&words, field, value),
            None => words,
        }
    }
}

/// Reads all types of a preprocessed description: each block that is in no
/// union, then each variant of each union.
pub fn parse(text: &str) -> Vec<Type> {
    let mut clean = String::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let line = line.split("--").next().unwrap();
        clean.push_str(
            &line
                .replace(['(', ')', ','], " ")
                .replace('{', " { ")
                .replace('}', " } "),
        );
        clean.push('\n');
    }
    let mut tokens = clean.split_whitespace().peekable();
    let mut base = (64, 64, false);
    let mut blocks: Vec<Type> = Vec::new();
    let mut unions = Vec::new();
    while let Some(token) = tokens.next() {
        match token {
            "base" => {
                let mut numbers = Vec::new();
                while let Some(number) = tokens.peek().and_then(|t| t.parse::<usize>().ok()) {
                    numbers.push(number);
                    tokens.next();
                }
                base = match numbers[..] {
                    [word] => (word, word, false),
                    [word, value, sign] => (word, value, sign == 1),
                    _ => panic!("base {numbers:?}"),
                };
            }
            "block" => {
                let name = tokens.next().unwrap();
                let order: Vec<&str> = tokens.by_ref().take_while(|&t| t != "{").collect();
                let body: Vec<&str> = tokens.by_ref().take_while(|&t| t != "}").collect();
                blocks.push(block(name, &order, &body, base));
            }
            "tagged_union" => {
                let (name, field) = (tokens.next().unwrap(), tokens.next().unwrap());
                let body: Vec<&str> = tokens.by_ref().take_while(|&t| t != "}").collect();
                unions.push((name, field, body, base));
            }
            other => panic!("unexpected {other}"),
        }
    }
    let mut variants = Vec::new();
    for (name, field, body, base) in unions {
        for tag in body[1..].chunks(3) {
            let mut variant = blocks.iter().find(|b| b.block == tag[1]).unwrap().clone();
            let field = variant.fields.iter().position(|f| f.0 == field).unwrap();
            (variant.word_bits, variant.value_bits, variant.sign) = base;
            variant.union = Some((name.to_string(), field, tag[2].parse().unwrap()));
            variants.push(variant);
        }
    }
    blocks.retain(|b| !variants.iter().any(|v| v.block == b.block));
    blocks.extend(variants);
    blocks
}

fn block(name: &str, order: &[&str], body: &[&str], base: (usize, usize, bool)) -> Type {
    let mut fields: Vec<(String, usize, bool)> = Vec::new();
    // From the topmost bit down, then turned round.
    let mut bits = Vec::new();
    let mut body = body.iter();
    while let Some(&kind) = body.next() {
        if kind == "padding" {
            let width = body.next().unwrap().parse().unwrap();
            bits.extend(vec![None; width]);
        } else {
            let name = body.next().unwrap().to_string();
            let width = body.next().unwrap().parse().unwrap();
            bits.extend((0..width).rev().map(|number| Some((fields.len(), number))));
            fields.push((name, width, kind == "field_high"));
        }
    }
    bits.reverse();
    let order = if order.is_empty() {
        (0..fields.len()).collect()
    } else {
        order
            .iter()
            .map(|o| fields.iter().position(|f| f.0 == *o).unwrap())
            .collect()
    };
    let (word_bits, value_bits, sign) = base;
    Type {
        block: name.into(),
        union: None,
        word_bits,
        value_bits,
        sign,
        bits,
        fields,
        order,
    }
}
