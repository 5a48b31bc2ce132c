//! Object invocations: the three XML files, generic, of x86_64, of x86.

use roxmltree::Node;

use crate::Error;
use crate::condition::Condition;
use crate::xml::Xml;

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
    /// The condition under which it exists.
    pub condition: Condition,
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
    "seL4_SchedContext",
    "seL4_X86_IOPort",
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
        // A badge or guard is a tagged word in the oldest description (CapData), and
        // a plain one in the others.
        "seL4_Word"
        | "seL4_Time"
        | "seL4_CapData_t"
        | "seL4_X86_VMAttributes"
        | "seL4_X86_EPT_VMAttributes" => Type::Integer(64),
        "seL4_PrioProps_t" | "seL4_CapRights_t" => {
            Type::BitField(name.trim_end_matches("_t").to_string())
        }
        "seL4_UserContext" | "seL4_VCPUContext" => Type::Struct(name.to_string()),
        _ => return None,
    })
}

/// Parts of a method that only document it.
const DOCUMENTATION: &[&str] = &["brief", "description", "return", "cap_param", "error"];

/// Parses `text`, the content of `file`.
///
/// # Errors
/// If the XML is malformed, an attribute is missing, or an element, an attribute, a
/// type or a condition is not known, with file and line.
pub fn parse(file: &str, text: &str) -> Result<Api, Error> {
    let reader = Reader(Xml::parse(file, text)?);
    let root = reader.0.root();
    if !root.has_tag_name("api") {
        return Err(reader.0.unexpected(root));
    }
    reader.0.only(root, &["name", "label_prefix"])?;
    let mut api = Api::default();
    for node in root.children().filter(Node::is_element) {
        match node.tag_name().name() {
            "struct" => api.structs.push(reader.structure(node)?),
            "interface" => {
                let known = ["name", "manual_name", "cap_description"];
                reader.0.only(node, &known)?;
                let interface = reader.0.attribute(node, "name")?;
                for method in node.children().filter(Node::is_element) {
                    api.methods.push(reader.method(method, &interface)?);
                }
            }
            _ => return Err(reader.0.unexpected(node)),
        }
    }
    Ok(api)
}

struct Reader<'input>(Xml<'input>);

impl Reader<'_> {
    fn structure(&self, node: Node<'_, '_>) -> Result<Struct, Error> {
        let xml = &self.0;
        xml.only(node, &["name"])?;
        let name = xml.attribute(node, "name")?;
        let mut members = Vec::new();
        for member in node.children().filter(Node::is_element) {
            if !member.has_tag_name("member") {
                return Err(xml.unexpected(member));
            }
            xml.only(member, &["name"])?;
            members.push(xml.attribute(member, "name")?);
        }
        Ok(Struct { name, members })
    }

    fn method(&self, node: Node<'_, '_>, interface: &str) -> Result<Method, Error> {
        let xml = &self.0;
        if !node.has_tag_name("method") {
            return Err(xml.unexpected(node));
        }
        let known = ["id", "name", "condition", "manual_name", "manual_label"];
        xml.only(node, &known)?;
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for child in node.children().filter(Node::is_element) {
            match child.tag_name().name() {
                "param" => {
                    let (parameter, direction) = self.parameter(child)?;
                    match direction.as_str() {
                        "in" => inputs.push(parameter),
                        "out" => outputs.push(parameter),
                        other => {
                            return Err(xml.error(child, format!("unknown direction `{other}`")));
                        }
                    }
                }
                // Read below.
                "condition" => {}
                name if DOCUMENTATION.contains(&name) => {}
                _ => return Err(xml.unexpected(child)),
            }
        }
        Ok(Method {
            label: xml.attribute(node, "id")?,
            interface: interface.to_string(),
            name: xml.attribute(node, "name")?,
            condition: xml.condition(node)?,
            inputs,
            outputs,
        })
    }

    /// Returns a parameter and its direction.
    fn parameter(&self, node: Node<'_, '_>) -> Result<(Parameter, String), Error> {
        let xml = &self.0;
        xml.only(node, &["dir", "name", "type", "description"])?;
        let described = |child: &Node<'_, '_>| child.has_tag_name("description");
        if let Some(odd) = node.children().find(|n| n.is_element() && !described(n)) {
            return Err(xml.unexpected(odd));
        }
        let ty_name = xml.attribute(node, "type")?;
        let ty = type_of(&ty_name)
            .ok_or_else(|| xml.error(node, format!("unknown type `{ty_name}`")))?;
        let name = xml.attribute(node, "name")?;
        Ok((Parameter { name, ty }, xml.attribute(node, "dir")?))
    }
}
