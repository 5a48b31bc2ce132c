//! The resolved layout of bit field types: which bits of which word hold a field.

/// The word that blocks are made of, from a `base` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Bits in a word: 8, 16, 32 or 64.
    pub word_bits: u32,
    /// Significant bits of a full value (an address, say); a `field_high`
    /// holds the topmost of these.
    pub value_bits: u32,
    /// Whether values read from a `field_high` are sign-extended from
    /// `value_bits`.
    pub sign_extend: bool,
}

/// One named field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name as in the description.
    pub name: String,
    /// The word that holds it.
    pub word: usize,
    /// Its lowest bit in that word.
    pub shift: u32,
    /// Its width in bits.
    pub width: u32,
    /// Declared `field_high`: holds the top bits of a value, whose low bits
    /// are zero and not stored.
    pub high: bool,
}

impl Field {
    /// Returns the field's bits, at the bottom of a word.
    pub fn mask(&self) -> u64 {
        u64::MAX >> (64 - self.width)
    }

    /// Returns how far a value's stored bits lie above bit 0 of the value.
    pub fn value_shift(&self, base: Base) -> u32 {
        if self.high {
            base.value_bits - self.width
        } else {
            0
        }
    }

    /// Returns the sign bit of the value, if values of this field are
    /// sign-extended.
    pub fn sign_bit(&self, base: Base) -> Option<u32> {
        (self.high && base.sign_extend).then_some(base.value_bits - 1)
    }
}

/// A block: a fixed number of words with named fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its name as in the description.
    pub name: String,
    /// Its words.
    pub base: Base,
    /// How many words it has.
    pub words: usize,
    /// Its fields, topmost first.
    pub fields: Vec<Field>,
    /// Indices into `fields` in the order in which a constructor takes them.
    pub visible: Vec<usize>,
}

impl Block {
    /// Returns the field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// Returns the fields in constructor order.
    pub fn visible_fields(&self) -> impl Iterator<Item = &Field> {
        self.visible.iter().map(|&i| &self.fields[i])
    }
}

/// One kind of a tagged union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The value of the tag field.
    pub tag: u64,
    /// The layout under that tag; its name is the variant's name.
    pub block: Block,
}

/// A tagged union: blocks of one size, told apart by a field that lies at the
/// same place in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Union {
    /// Its name as in the description.
    pub name: String,
    /// The tag field: its place is the same in every variant.
    pub tag: Field,
    /// The words of every variant.
    pub base: Base,
    /// How many words each variant has.
    pub words: usize,
    /// The variants in the order of the description.
    pub variants: Vec<Variant>,
}

/// Everything that one description declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Blocks that are not a variant of any union.
    pub blocks: Vec<Block>,
    /// Tagged unions.
    pub unions: Vec<Union>,
}
