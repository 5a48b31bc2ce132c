//! Object invocations: `sel4.xml` and the two `sel4arch.xml` files.

use roxmltree::{Document, Node};

use crate::Error;

/// How a parameter travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A capability: an extra capability of the message, not a word.
    Cap,
    /// An integer of so many bits (1 is a boolean), packed with its
    /// neighbours at its own alignment.
    Integer(u32),
    /// A bit field of one word, by its name in the `.bf` description.
    BitField(String),
    /// A structure of words, by its name in the XML.
    Struct(String),
}

/// A parameter of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name as in the description.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

/// A method of a kernel object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// The label's name, such as `TCBResume`.
    pub label: String,
    /// The object's interface, such as `seL4_TCB`.
    pub interface: String,
    /// The method's name, such as `Resume`.
    pub name: String,
    /// The C condition under which it exists; empty for always.
    pub condition: String,
    /// Inputs, in order.
    pub inputs: Vec<Parameter>,
    /// Outputs, in order.
    pub outputs: Vec<Parameter>,
}

/// A structure of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struct {
    /// Its name as in the description.
    pub name: String,
    /// Its members in order.
    pub members: Vec<String>,
}

/// One description file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Api {
    /// Methods in document order, which numbers the labels.
    pub methods: Vec<Method>,
    /// Structures.
    pub structs: Vec<Struct>,
}

/// The types that name a capability (x86_64).
const CAP_TYPES: &[&str] = &[
    "seL4_CPtr",
    "seL4_CNode",
    "seL4_IRQHandler",
    "seL4_IRQControl",
    "seL4_TCB",
    "seL4_Untyped",
    "seL4_DomainSet",
    "seL4_X86_IOSpace",
    "seL4_X64_PML4",
    "seL4_X86_EPTPML4",
];

fn type_of(name: &str) -> Option<Type> {
    if CAP_TYPES.contains(&name) {
        return Some(Type::Cap);
    }
    Some(match name {
        "seL4_Bool" => Type::Integer(1),
        "seL4_Uint8" => Type::Integer(8),
        "seL4_Uint16" => Type::Integer(16),
        "seL4_Uint32" | "int" => Type::Integer(32),
        "seL4_Word" | "seL4_X86_VMAttributes" => Type::Integer(64),
        "seL4_CapData_t" | "seL4_PrioProps_t" | "seL4_CapRights_t" => {
            Type::BitField(name.trim_end_matches("_t").to_string())
        }
        "seL4_UserContext" | "seL4_VCPUContext" => Type::Struct(name.to_string()),
        _ => return None,
    })
}

/// Parses `text`, the content of `file`.
///
/// # Errors
/// If the XML is malformed, an attribute is missing or a type unknown, with
/// file and line.
pub fn parse(file: &str, text: &str) -> Result<Api, Error> {
    let document =
        Document::parse(text).map_err(|e| Error::new(file, e.pos().row, e.to_string()))?;
    let reader = Reader {
        file,
        document: &document,
    };
    let mut api = Api::default();
    for node in document.root_element().children().filter(Node::is_element) {
        match node.tag_name().name() {
            "struct" => api.structs.push(reader.structure(node)?),
            "interface" => {
                let interface = reader.attribute(node, "name")?;
                for method in node.children().filter(Node::is_element) {
                    api.methods.push(reader.method(method, &interface)?);
                }
            }
            other => return Err(reader.error(node, format!("unexpected element `{other}`"))),
        }
    }
    Ok(api)
}

struct Reader<'a, 'input> {
    file: &'a str,
    document: &'a Document<'input>,
}

impl Reader<'_, '_> {
    fn error(&self, node: Node<'_, '_>, message: String) -> Error {
        Error::new(
            self.file,
            self.document.text_pos_at(node.range().start).row,
            message,
        )
    }

    fn attribute(&self, node: Node<'_, '_>, name: &str) -> Result<String, Error> {
        let tag = node.tag_name().name();
        node.attribute(name)
            .map(str::to_string)
            .ok_or_else(|| self.error(node, format!("`<{tag}>` has no `{name}`")))
    }

    fn structure(&self, node: Node<'_, '_>) -> Result<Struct, Error> {
        let name = self.attribute(node, "name")?;
        let members = node
            .children()
            .filter(Node::is_element)
            .map(|member| self.attribute(member, "name"))
            .collect::<Result<_, _>>()?;
        Ok(Struct { name, members })
    }

    fn method(&self, node: Node<'_, '_>, interface: &str) -> Result<Method, Error> {
        if !node.has_tag_name("method") {
            return Err(self.error(node, format!("unexpected `{}`", node.tag_name().name())));
        }
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for param in node.children().filter(|n| n.has_tag_name("param")) {
            let ty_name = self.attribute(param, "type")?;
            let ty = type_of(&ty_name)
                .ok_or_else(|| self.error(param, format!("unknown type `{ty_name}`")))?;
            let parameter = Parameter {
                name: self.attribute(param, "name")?,
                ty,
            };
            match self.attribute(param, "dir")?.as_str() {
                "in" => inputs.push(parameter),
                "out" => outputs.push(parameter),
                other => return Err(self.error(param, format!("unknown direction `{other}`"))),
            }
        }
        Ok(Method {
            label: self.attribute(node, "id")?,
            interface: interface.to_string(),
            name: self.attribute(node, "name")?,
            condition: node.attribute("condition").unwrap_or("").to_string(),
            inputs,
            outputs,
        })
    }
}
