//! Conditions in the XML descriptions, and whether they hold for a kernel's options.
//!
//! There are two notations. An attribute holds C text: `defined NAME` (with or
//! without parentheses) or `NAME > NUMBER`. A `<condition>` child holds elements:
//! `config` names an option, `not` has one part, `and` and `or` have several.
//! These are all that is understood.

use std::fmt;

use roxmltree::Node;

use crate::Options;

/// A condition on the kernel's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The option is set.
    Defined(String),
    /// The option's number is greater; an option that is not set counts as 0, as in C.
    Greater(String, u64),
    /// The other does not hold.
    Not(Box<Condition>),
    /// All of them hold; none at all do, too.
    All(Vec<Condition>),
    /// One of them holds.
    Any(Vec<Condition>),
}

impl Condition {
    /// A condition that always holds.
    pub const ALWAYS: Condition = Condition::All(Vec::new());

    /// Parses C text; an empty one always holds.
    ///
    /// # Errors
    /// A message if it has another form.
    pub fn from_c(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(Self::ALWAYS);
        }
        if let Some(rest) = trimmed.strip_prefix("defined") {
            let rest = rest.trim();
            let name = rest
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(')'))
                .unwrap_or(rest)
                .trim();
            if is_name(name) {
                return Ok(Self::Defined(name.to_string()));
            }
        }
        if let Some((name, number)) = trimmed.split_once('>') {
            let name = name.trim();
            if let (true, Ok(number)) = (is_name(name), number.trim().parse()) {
                return Ok(Self::Greater(name.to_string(), number));
            }
        }
        Err(format!("condition `{text}` is not understood"))
    }

    /// Parses the content of a `<condition>` element: one condition.
    ///
    /// # Errors
    /// A message if there is not exactly one, or an element is not known.
    pub fn from_element(node: Node<'_, '_>) -> Result<Self, String> {
        let mut parts = Self::parts(node)?;
        match (parts.pop(), parts.pop()) {
            (Some(part), None) => Ok(part),
            _ => Err(format!(
                "`<{}>` must hold one condition",
                node.tag_name().name()
            )),
        }
    }

    fn parts(node: Node<'_, '_>) -> Result<Vec<Self>, String> {
        if let Some(text) = node
            .children()
            .find(|child| child.is_text() && !child.text().unwrap_or_default().trim().is_empty())
        {
            let text = text.text().unwrap_or_default().trim();
            return Err(format!("condition `{text}` is not understood"));
        }
        node.children()
            .filter(Node::is_element)
            .map(|child| match child.tag_name().name() {
                "config" => {
                    let attributes: Vec<_> = child.attributes().collect();
                    match attributes.as_slice() {
                        [one] if one.name() == "var" && is_name(one.value()) => {
                            Ok(Self::Defined(one.value().to_string()))
                        }
                        _ => Err("expected `<config var=...>` and nothing else in it".to_string()),
                    }
                }
                "not" => Ok(Self::Not(Box::new(Self::from_element(child)?))),
                name @ ("and" | "or") => {
                    let parts = Self::parts(child)?;
                    if parts.is_empty() {
                        return Err(format!("`<{name}>` holds no condition"));
                    }
                    Ok(if name == "and" {
                        Self::All(parts)
                    } else {
                        Self::Any(parts)
                    })
                }
                other => Err(format!("unexpected `{other}` in a condition")),
            })
            .collect()
    }

    /// Returns whether it holds for `options`.
    pub fn holds(&self, options: &Options) -> bool {
        match self {
            Self::Defined(name) => options.contains_key(name),
            Self::Greater(name, number) => {
                let value = options.get(name).and_then(|value| value.parse().ok());
                value.unwrap_or(0u64) > *number
            }
            Self::Not(part) => !part.holds(options),
            Self::All(parts) => parts.iter().all(|part| part.holds(options)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(options)),
        }
    }
}

/// Writes the condition as C's preprocessor takes it.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = |f: &mut fmt::Formatter<'_>, parts: &[Self], operator, none| {
            for (index, part) in parts.iter().enumerate() {
                let operator = if index == 0 { "(" } else { operator };
                write!(f, "{operator}{part}")?;
            }
            f.write_str(if parts.is_empty() { none } else { ")" })
        };
        match self {
            Self::Defined(name) => write!(f, "defined({name})"),
            Self::Greater(name, number) => write!(f, "{name} > {number}"),
            Self::Not(part) => write!(f, "!({part})"),
            Self::All(parts) => several(f, parts, " && ", "1"),
            Self::Any(parts) => several(f, parts, " || ", "0"),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
