//! What happens next in a workflow: a state machine over its nodes, without I/O.
//!
//! Like Argo's own controller it walks the whole workflow from its entrypoint at every turn and makes the nodes that
//! can begin now. Everything that it knows is in the nodes, so a workflow that was interrupted goes on by walking
//! again. Time comes in through parameters; leaves go out as [`Start`]s and come back as [`Outcome`]s.
//!
//! | file | subject |
//! |---|---|
//! | `call` | one template with its arguments: inputs, memoization |
//! | `retry` | one template, tried again |
//! | `steps` | groups of steps |
//! | `dag` | tasks and what they depend on |
//! | `expand` | `withItems`, `withParam`, `withSequence`, and what comes of all items together |
//! | `leaf` | modules and suspensions |
//! | `hooks` | exit handlers and other hooks |
//! | `values` | inputs, outputs and what names mean |

mod call;
mod dag;
mod expand;
mod hooks;
mod leaf;
mod retry;
mod steps;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use call::{duration, milliseconds};
pub use values::timestamp;
pub(crate) use values::{TIME_LETTERS, identity_scope};

use crate::definition::Definition;
use crate::model::{Outputs, Template};
use crate::node::{Node, NodeKind, Outcome, Phase, Time, node_id};
use crate::substitute::Scope;
use call::Call;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Most nodes that a workflow may have.
pub const MAX_NODES: usize = 100_000;

/// Templates may call each other this deep, as in Argo.
const MAX_DEPTH: usize = 100;

/// Who a workflow under way is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// A name that no other ever has.
    pub uid: String,
    /// Where it belongs.
    pub namespace: String,
    /// When it was made.
    pub created: Time,
}

/// How somebody ends a workflow.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Shutdown {
    /// Exit handlers run.
    Stop,
    /// They do not.
    Terminate,
}

/// How the whole stands.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its phase.
    pub phase: Phase,
    /// Why.
    pub message: String,
    /// When it began.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// Whether `spec.suspend` was undone.
    pub resumed: bool,
    /// How it is being ended.
    pub shutdown: Option<Shutdown>,
}

/// A leaf that is to be run now.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its node.
    pub name: String,
    /// Under what its artifacts are kept.
    pub pod: String,
    /// Everything that it is, all tags replaced.
    pub template: Template,
    /// When it has to be done.
    pub deadline: Option<Time>,
}

/// What a turn brought.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// To be run.
    pub start: Vec<Start>,
    /// To be ended: nobody waits for them any more.
    pub cancel: Vec<String>,
    /// When to look again if nothing else happens.
    pub wake: Option<Time>,
    /// To be kept for later workflows.
    pub memoize: Vec<(String, Outputs)>,
}

/// One workflow under way.
pub struct Controller {
    definition: Arc<Definition>,
    identity: Identity,
    status: Status,
    nodes: HashMap<String, Node>,
    /// The names of nodes below a node, in no order.
    children: HashMap<String, Vec<String>>,
    /// Changed since they were taken.
    changed: BTreeSet<String>,
    sequence: u64,
    global: Arc<Scope>,
    now: Time,
    turn: Turn,
    /// Leaves that run in this process.
    in_flight: HashSet<String>,
    /// Leaves that run anywhere, by phase.
    running: usize,
    /// Children under way, by boundary.
    active: HashMap<String, usize>,
    /// Items are the same at every turn.
    expansions: HashMap<String, Arc<Vec<Value>>>,
    memos: BTreeMap<String, (Time, Outputs)>,
    /// Came since the last turn.
    new_memos: Vec<(String, Outputs)>,
    depth: usize,
}

// === impl Controller ===

impl Controller {
    /// A workflow at its beginning, or as it was left: with its nodes.
    pub fn new(
        definition: Arc<Definition>,
        identity: Identity,
        status: Status,
        nodes: Vec<Node>,
        memos: BTreeMap<String, (Time, Outputs)>,
    ) -> Controller {
        let sequence = nodes.iter().map(|node| node.sequence).max().unwrap_or(0);
        let mut children: HashMap<String, Vec<String>> = HashMap::new();
        for node in &nodes {
            if let Some(parent) = &node.parent {
                children.entry(parent.clone()).or_default().push(node.name.clone());
            }
        }
        Controller {
            definition,
            identity,
            status,
            nodes: nodes.into_iter().map(|node| (node.name.clone(), node)).collect(),
            children,
            changed: BTreeSet::new(),
            sequence,
            global: Arc::default(),
            now: 0,
            turn: Turn::default(),
            in_flight: HashSet::new(),
            running: 0,
            active: HashMap::new(),
            expansions: HashMap::new(),
            memos,
            new_memos: Vec::new(),
            depth: 0,
        }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How it stands.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// All nodes, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The nodes that changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<Node> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|name| self.nodes.get(name).cloned()).collect()
    }

    /// A leaf has come to its end. One that is not waited for any more changes nothing.
    pub fn finished(&mut self, name: &str, outcome: Outcome, now: Time) {
        self.in_flight.remove(name);
        self.now = now;
        let is_waited_for = self.nodes.get(name).is_some_and(|node| !node.phase.is_fulfilled());
        if is_waited_for {
            self.end_with(name, outcome.phase, &outcome.message, outcome.outputs);
        }
    }

    /// Somebody ends the workflow.
    pub fn shut_down(&mut self, how: Shutdown) {
        if !self.status.phase.is_fulfilled() && self.status.shutdown != Some(Shutdown::Terminate) {
            self.status.shutdown = Some(how);
        }
    }

    /// Goes through the whole workflow: what can begin, begins.
    pub fn operate(&mut self, now: Time) -> Turn {
        self.now = now;
        self.turn = Turn::default();
        if self.status.phase.is_fulfilled() {
            return Turn::default();
        }
        if self.status.started_at.is_none() {
            self.status.started_at = Some(now);
            self.status.phase = Phase::Running;
        }
        self.count();
        self.global = Arc::new(self.global_scope());
        if self.definition.workflow.spec.suspend && !self.status.resumed && self.status.shutdown.is_none() {
            "it is suspended".clone_into(&mut self.status.message);
            return Turn::default();
        }
        self.status.message.clear();
        let name = self.identity.name.clone();
        let call = Call::entrypoint(&name, &self.definition.workflow.spec);
        let phase = match self.whole_arguments() {
            Ok(arguments) => self.execute(&Call { arguments, ..call }),
            Err(message) => self.fail_to_begin(&call, &message),
        };
        let hooks_done = self.workflow_hooks(phase);
        if phase.is_fulfilled() && hooks_done {
            self.exit_handler(phase);
        }
        self.turn.memoize = std::mem::take(&mut self.new_memos);
        std::mem::take(&mut self.turn)
    }

    /// Why nothing new may begin, if so; exit handlers may.
    fn is_ending(&mut self) -> Option<String> {
        if let Some(how) = self.status.shutdown {
            return Some(format!("Stopped with strategy '{how:?}'"));
        }
        let deadline = self.deadline()?;
        if self.now >= deadline {
            return Some("Step exceeded its deadline".to_owned());
        }
        self.wake(deadline);
        None
    }

    /// When the whole has to be done.
    fn deadline(&self) -> Option<Time> {
        let seconds = self.definition.workflow.spec.active_deadline_seconds?;
        Some(self.status.started_at?.saturating_add(seconds.saturating_mul(1000)))
    }

    fn wake(&mut self, at: Time) {
        self.turn.wake = Some(self.turn.wake.map_or(at, |wake| wake.min(at)));
    }

    fn count(&mut self) {
        self.running = 0;
        self.active.clear();
        for node in self.nodes.values().filter(|node| !node.phase.is_fulfilled()) {
            if node.kind == NodeKind::Plugin && node.phase == Phase::Running {
                self.running += 1;
            }
            if let Some(boundary) = node.boundary.as_ref().filter(|_| counts(node)) {
                *self.active.entry(boundary.clone()).or_default() += 1;
            }
        }
    }

    fn phase_of(&self, name: &str) -> Option<Phase> {
        self.nodes.get(name).map(|node| node.phase)
    }

    /// The nodes right below one.
    fn children_of(&self, name: &str) -> impl Iterator<Item = &Node> {
        self.children.get(name).into_iter().flatten().filter_map(|child| self.nodes.get(child))
    }

    /// Makes a node that is not there yet.
    fn begin(&mut self, call: &Call, kind: NodeKind, phase: Phase) -> &mut Node {
        self.sequence += 1;
        let node = Node {
            id: node_id(&self.identity.name, &call.name),
            name: call.name.clone(),
            display_name: call.display.clone(),
            kind,
            template_name: call.template_name(),
            phase,
            message: String::new(),
            started_at: self.now,
            finished_at: phase.is_fulfilled().then_some(self.now),
            inputs: Default::default(),
            outputs: Outputs::default(),
            boundary: call.boundary.clone(),
            parent: call.parent.clone(),
            sequence: self.sequence,
            memoized: false,
            memo_key: None,
        };
        if let Some(boundary) = call.boundary.as_ref().filter(|_| counts(&node) && !phase.is_fulfilled()) {
            *self.active.entry(boundary.clone()).or_default() += 1;
        }
        if let Some(parent) = &call.parent {
            self.children.entry(parent.clone()).or_default().push(call.name.clone());
        }
        self.changed.insert(call.name.clone());
        self.nodes.entry(call.name.clone()).insert_entry(node).into_mut()
    }

    /// Ends a node; its outputs stay as they are.
    fn end(&mut self, name: &str, phase: Phase, message: &str) -> Phase {
        let outputs = self.nodes.get(name).map(|node| node.outputs.clone()).unwrap_or_default();
        self.end_with(name, phase, message, outputs)
    }

    fn end_with(&mut self, name: &str, phase: Phase, message: &str, outputs: Outputs) -> Phase {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else { return phase };
        if node.phase.is_fulfilled() {
            return node.phase;
        }
        if node.kind == NodeKind::Plugin && node.phase == Phase::Running {
            self.running = self.running.saturating_sub(1);
        }
        if let Some(active) =
            node.boundary.as_ref().filter(|_| counts(node)).and_then(|b| self.active.get_mut(b))
        {
            *active = active.saturating_sub(1);
        }
        node.phase = phase;
        message.clone_into(&mut node.message);
        node.finished_at = Some(now);
        node.outputs = outputs;
        if let Some(key) = node.memo_key.clone().filter(|_| phase == Phase::Succeeded && !node.memoized) {
            self.memos.insert(key.clone(), (now, node.outputs.clone()));
            self.new_memos.push((key, node.outputs.clone()));
        }
        self.changed.insert(name.to_owned());
        phase
    }

    /// A node that could not even begin.
    fn fail_to_begin(&mut self, call: &Call, message: &str) -> Phase {
        if !self.nodes.contains_key(&call.name) {
            self.begin(call, NodeKind::Skipped, Phase::Running);
        }
        self.end(&call.name, Phase::Error, message)
    }

    fn set_message(&mut self, name: &str, message: &str) {
        if let Some(node) = self.nodes.get_mut(name).filter(|node| node.message != message) {
            message.clone_into(&mut node.message);
            self.changed.insert(name.to_owned());
        }
    }
}

/// Whether a node is one of those that a template's `parallelism` counts.
fn counts(node: &Node) -> bool {
    !matches!(node.kind, NodeKind::StepGroup | NodeKind::TaskGroup | NodeKind::Skipped)
        && node.parent.as_ref().is_none_or(|parent| !is_attempt_of(&node.name, parent))
}

/// Whether this is one of the tries of that node: `name(0)`.
fn is_attempt_of(name: &str, parent: &str) -> bool {
    let number = name.strip_prefix(parent).and_then(|rest| rest.strip_prefix('(')?.strip_suffix(')'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
