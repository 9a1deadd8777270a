//! One item of the stream filter `Layotto`: a module and how it runs.

use crate::error::{ResourceError, ResourceErrors, nearest, quote};
use crate::json_tree;
use crate::load::UnusedField;
use crate::manifest::grants;
use crate::text_file::check_size;
use crate::tree::{Entry, Findings, Node, Position, Table, Value};
use crate::units::parse_size;
use crate::values::count;
use dhow_blocks::grants::Grants;
use std::collections::BTreeMap;
use std::path::Path;

/// The key of a configuration whose text is for the VM, and not for the plugin.
const VM: &str = "vm";

/// A function.
#[derive(Clone, PartialEq)]
pub struct Function {
    /// The item's key. The id that requests name is the one that the module declares.
    pub name: String,
    /// `vm_config.path`, or `vm_config.url`. Relative paths begin at the current folder.
    pub source: String,
    /// `vm_config.md5` of the module, in lower case.
    pub md5: Option<String>,
    /// `vm_config.mem`: the largest memory of an instance, in bytes.
    pub memory: Option<u64>,
    /// `instance_num`: instances that are kept, and the share of the requests for its id, where several modules have one.
    pub instances: Option<u32>,
    /// `grants`, which Layotto does not have: what the function may do instead of what it may by default.
    pub grants: Option<Grants>,
    /// Every other text: the plugin configuration; under the key `vm`, unless the item has one, all of `vm_config` as
    /// JSON: the VM configuration. Not shown by `Debug`.
    pub config: BTreeMap<String, String>,
    /// Where the item stands.
    pub(crate) at: Position,
}

/// A module that MOSN's part of the configuration describes (`wasm_global_plugins`), for functions to name.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    vm: Vm,
    instances: Option<u32>,
}

/// Plugins by their names.
pub(super) type Plugins = BTreeMap<String, Plugin>;

/// What there is in `vm_config`.
#[derive(Clone, Debug)]
struct Vm {
    source: String,
    md5: Option<String>,
    memory: Option<u64>,
    /// All of it, as JSON.
    text: String,
}

// === impl Plugin ===

impl Plugin {
    /// Reads one of the list, with its name.
    pub(super) fn read(
        findings: &mut Findings,
        node: &Node,
        path: String,
        unused: &mut Vec<UnusedField>,
    ) -> Option<(String, Plugin)> {
        let mut table = findings.table(node, path)?;
        let name = table.optional(findings, "plugin_name", Findings::text).unwrap_or_default();
        let instances = table.optional(findings, "instance_num", instances).flatten();
        let vm = Vm::read(findings, &mut table, node.at, unused)?;
        unused.extend(table.rest().map(|(name, line)| UnusedField { name, line }));
        Some((name, Plugin { vm, instances }))
    }
}

// === impl Vm ===

impl Vm {
    /// Reads the `vm_config` of an item, which stands at `at`.
    fn read(
        findings: &mut Findings,
        table: &mut Table<'_>,
        at: Position,
        unused: &mut Vec<UnusedField>,
    ) -> Option<Vm> {
        let Some(given) = table.entry("vm_config") else {
            findings.add(at, &table.path, "`vm_config` is missing", "expected vm_config with a path");
            return None;
        };
        let mut vm = findings.table(&given.node, table.path_of("vm_config"))?;
        // There is one engine.
        vm.get("engine");
        let md5 = vm.optional(findings, "md5", md5);
        let memory = vm.optional(findings, "mem", memory);
        let source = source(findings, &mut vm);
        unused.extend(vm.rest().map(|(name, line)| UnusedField { name, line }));
        let text = json_tree::write(&given.node);
        Some(Vm { source: source?, md5: md5.flatten(), memory: memory.flatten(), text })
    }
}

// === impl Function ===

impl Function {
    /// The line of the item.
    pub fn line(&self) -> usize {
        self.at.line
    }

    /// Reads an item that stands by itself, as Layotto's API takes it: its `name` is its key. Errors speak of the file
    /// `request`.
    pub fn parse(text: &str) -> Result<Function, ResourceErrors> {
        let file = Path::new("request");
        check_size(text.len(), file)?;
        let node = json_tree::parse(text, file)?;
        let mut findings = Findings::new(file);
        let name = match &node.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == "name"),
            _ => None,
        };
        let key = name.and_then(|entry| entry.node.scalar()).unwrap_or_default();
        if key.is_empty() {
            findings.add(node.at, "name", "is missing", "expected the name of a function");
        }
        let entry = Entry { key, at: node.at, node };
        let function = Function::read(&mut findings, &entry, String::new(), &Plugins::new(), &mut Vec::new());
        ResourceErrors::check(findings.into_vec())?;
        function.ok_or_else(|| ResourceError::whole_file(file, "is no function", "").into())
    }

    pub(super) fn read(
        findings: &mut Findings,
        entry: &Entry,
        path: String,
        plugins: &Plugins,
        unused: &mut Vec<UnusedField>,
    ) -> Option<Function> {
        let mut table = findings.table(&entry.node, path)?;
        let grants = table.optional(findings, "grants", grants);
        let instances = table.optional(findings, "instance_num", instances);
        // The name that Layotto's API knows it by is its id.
        for idle in ["name", "root_context_id"] {
            table.get(idle);
        }
        let plugin = match table.entry("from_wasm_plugin").filter(|entry| !is_empty(&entry.node)) {
            None => None,
            Some(entry) => {
                let path = table.path_of("from_wasm_plugin");
                let name = findings.text(&entry.node, &path)?;
                let Some(plugin) = plugins.get(&name) else {
                    let known: Vec<&str> = plugins.keys().map(String::as_str).collect();
                    let hint = match nearest(&name, &known) {
                        Some(near) => format!("did you mean {}?", quote(near)),
                        None => "expected the plugin_name of one of wasm_global_plugins".to_owned(),
                    };
                    findings.add(entry.at, &path, format!("there is no plugin {}", quote(&name)), hint);
                    return None;
                };
                Some(plugin.clone())
            }
        };
        let (vm, usual) = match plugin {
            Some(Plugin { vm, instances }) => {
                // The plugin's takes its place.
                table.get("vm_config");
                (vm, instances)
            }
            None => (Vm::read(findings, &mut table, entry.at, unused)?, None),
        };
        let mut config = BTreeMap::from([(VM.to_owned(), vm.text)]);
        let known = ["grants", "instance_num", "name", "root_context_id", "from_wasm_plugin", "vm_config"];
        for entry in table.entries().iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            match &entry.node.value {
                Value::Text(text) => drop(config.insert(entry.key.clone(), text.clone())),
                _ => unused.push(UnusedField { name: table.path_of(&entry.key), line: entry.at.line }),
            }
        }
        Some(Function {
            name: entry.key.clone(),
            source: vm.source,
            md5: vm.md5,
            memory: vm.memory,
            instances: instances.flatten().or(usual),
            grants,
            config,
            at: entry.at,
        })
    }
}

/// Shows no value of the configuration: a password may be one.
impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name)
            .field("config", &self.config.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.value, Value::Text(text) if text.is_empty())
}

/// `path`, else `url`: one of them.
fn source(findings: &mut Findings, vm: &mut Table<'_>) -> Option<String> {
    let mut given = |field| {
        let text = vm.optional(findings, field, Findings::text);
        text.filter(|text| !text.is_empty())
    };
    let (path, url) = (given("path"), given("url"));
    let is_url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    match (path, url) {
        (Some(path), None) if !is_url(&path) && path != "-" => Some(path),
        (None, Some(url)) if is_url(&url) => Some(url),
        (None, Some(url)) => {
            let message = format!("{} is no URL of HTTP", quote(&url));
            findings.add(vm.at, &vm.path_of("url"), message, "expected http:// or https://");
            None
        }
        (Some(path), None) => {
            let message = format!("{} is no path of a file", quote(&path));
            findings.add(vm.at, &vm.path_of("path"), message, "URLs belong to `url`");
            None
        }
        _ => {
            let hint = "expected the path of a module, or its URL";
            findings.add(vm.at, &vm.path, "expected one of `path` and `url`", hint);
            None
        }
    }
}

/// Nothing above zero leaves the choice to the host.
fn instances(findings: &mut Findings, node: &Node, path: &str) -> Option<Option<u32>> {
    if matches!(&node.value, Value::Integer(text) if text.starts_with('-')) {
        return Some(None);
    }
    count(findings, node, path).map(|count| Some(count).filter(|count| *count > 0))
}

fn md5(findings: &mut Findings, node: &Node, path: &str) -> Option<Option<String>> {
    let text = findings.text(node, path)?.to_ascii_lowercase();
    let valid = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !valid && !text.is_empty() {
        findings.add(node.at, path, format!("{} is no MD5", quote(&text)), "expected 32 hexadecimal digits");
    }
    Some(Some(text).filter(|_| valid))
}

/// A number of MiB, or a size with its unit; 0 leaves the choice to the host.
fn memory(findings: &mut Findings, node: &Node, path: &str) -> Option<Option<u64>> {
    if matches!(node.value, Value::Integer(_)) {
        let mib = count(findings, node, path)?;
        return Some(Some(u64::from(mib) << 20).filter(|bytes| *bytes > 0));
    }
    let text = findings.text(node, path)?;
    match parse_size(&text) {
        Ok(bytes) => Some(Some(bytes).filter(|bytes| *bytes > 0)),
        Err(expected) => {
            findings.add(node.at, path, format!("{} is no size", quote(&text)), expected);
            None
        }
    }
}
