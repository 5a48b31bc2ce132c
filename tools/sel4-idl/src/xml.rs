//! What both kinds of XML description need: errors with their line, and strictness.

use roxmltree::{Document, Node};

use crate::Error;
use crate::condition::Condition;

/// A parsed file.
pub(crate) struct Xml<'input> {
    file: &'input str,
    document: Document<'input>,
}

impl<'input> Xml<'input> {
    /// Parses `text`, the content of `file`.
    pub(crate) fn parse(file: &'input str, text: &'input str) -> Result<Self, Error> {
        let document =
            Document::parse(text).map_err(|e| Error::new(file, e.pos().row, e.to_string()))?;
        Ok(Self { file, document })
    }

    pub(crate) fn root(&self) -> Node<'_, 'input> {
        self.document.root_element()
    }

    pub(crate) fn error(&self, node: Node<'_, '_>, message: impl Into<String>) -> Error {
        let line = self.document.text_pos_at(node.range().start).row;
        Error::new(self.file, line, message)
    }

    pub(crate) fn unexpected(&self, node: Node<'_, '_>) -> Error {
        let name = node.tag_name().name();
        self.error(node, format!("unexpected element `{name}`"))
    }

    pub(crate) fn attribute(&self, node: Node<'_, '_>, name: &str) -> Result<String, Error> {
        let tag = node.tag_name().name();
        node.attribute(name)
            .map(str::to_string)
            .ok_or_else(|| self.error(node, format!("`<{tag}>` has no `{name}`")))
    }

    /// Fails if the element has an attribute that is not among `known`: it might
    /// change what the element means.
    pub(crate) fn only(&self, node: Node<'_, '_>, known: &[&str]) -> Result<(), Error> {
        let tag = node.tag_name().name();
        match node.attributes().find(|a| !known.contains(&a.name())) {
            None => Ok(()),
            Some(odd) => {
                let odd = odd.name();
                Err(self.error(node, format!("unexpected attribute `{odd}` of `<{tag}>`")))
            }
        }
    }

    /// Returns the condition of an element, from its attribute and its child.
    pub(crate) fn condition(&self, node: Node<'_, '_>) -> Result<Condition, Error> {
        let mut found = Vec::new();
        if let Some(text) = node.attribute("condition") {
            found.push(Condition::from_c(text).map_err(|e| self.error(node, e))?);
        }
        for child in node.children().filter(|n| n.has_tag_name("condition")) {
            self.only(child, &[])?;
            found.push(Condition::from_element(child).map_err(|e| self.error(child, e))?);
        }
        match found.len() {
            0 => Ok(Condition::ALWAYS),
            1 => Ok(found.remove(0)),
            _ => Err(self.error(node, "more than one condition")),
        }
    }
}
