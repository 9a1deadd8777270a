//! A template of tasks: each begins when what it depends on is done.

use super::Controller;
use super::call::{Call, Frame};
use super::expand::Items;
use super::steps::word;
use crate::depends::{Condition, Question, condition};
use crate::model::{ContinueOn, Step};
use crate::node::{NodeKind, Phase};
use crate::substitute::Scope;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The tasks of a template, as one walk needs them.
struct Graph<'a> {
    dag: &'a str,
    tasks: BTreeMap<&'a str, (&'a Step, Condition)>,
}

/// What one walk has found.
#[derive(Default)]
struct Walk {
    /// Tasks that are done, with all of their hooks.
    done: HashSet<String>,
    is_stopped: bool,
}

impl Controller {
    pub(super) fn dag(&mut self, call: &Call, frame: &Frame) -> Result<Phase, String> {
        let dag = frame.template.dag.clone().unwrap_or_default();
        let continues: HashMap<&str, ContinueOn> =
            dag.tasks.iter().map(|task| (task.name.as_str(), task.continue_on.unwrap_or_default())).collect();
        let excuse = |name: &str, is_error: bool| {
            let continues = continues.get(name).copied().unwrap_or_default();
            if is_error { continues.error } else { continues.failed }
        };
        let mut graph = Graph { dag: &call.name, tasks: BTreeMap::new() };
        for task in &dag.tasks {
            let condition =
                condition(task, excuse).map_err(|error| format!("task {:?}: {error}", task.name))?;
            graph.tasks.insert(&task.name, (task, condition));
        }
        let target = frame.scope.text(&dag.target).map_err(|error| format!("target: {error}"))?;
        let targets: Vec<String> = if target.trim().is_empty() {
            let needed: HashSet<&str> = graph.tasks.values().flat_map(|(_, needs)| needs.tasks()).collect();
            dag.tasks
                .iter()
                .filter(|task| !needed.contains(task.name.as_str()))
                .map(|task| task.name.clone())
                .collect()
        } else {
            target.split_whitespace().map(str::to_owned).collect()
        };
        let is_stopped = dag.fail_fast != Some(false)
            && dag.tasks.iter().any(|task| {
                let phase = self.phase_of(&graph.node(&task.name));
                phase.is_some_and(|phase| phase.is_failed() && !excuse(&task.name, phase == Phase::Error))
                    // Whoever asks about failures is to see them.
                    && !graph.is_asked_about(&task.name)
            });
        if let Some(target) = targets.iter().find(|target| !graph.tasks.contains_key(target.as_str())) {
            return Err(format!("target: there is no task {target:?}"));
        }
        let mut walk = Walk { is_stopped, ..Walk::default() };
        let order = graph.in_order(&targets)?;
        for name in &order {
            self.task(&graph, name, frame, &mut walk)?;
        }
        let under_way =
            order.iter().any(|name| self.phase_of(&graph.node(name)).is_some() && !walk.done.contains(*name));
        let all_done = targets.iter().all(|target| walk.done.contains(target));
        if under_way || (!all_done && !walk.is_stopped) {
            return Ok(Phase::Running);
        }
        let failed = targets.iter().find_map(|target| self.branch_failure(&graph, target, &excuse));
        let failed = failed.or_else(|| {
            // Stopped before the targets were reached.
            let tasks = dag.tasks.iter().filter(|_| !all_done);
            tasks
                .map(|task| task.name.clone())
                .find(|name| self.phase_of(&graph.node(name)).is_some_and(Phase::is_failed))
        });
        if let Some(task) = failed {
            let node = self.nodes.get(&graph.node(&task));
            let (id, phase) = node.map(|node| (node.id.clone(), node.phase)).unwrap_or_default();
            let phase_of_dag = if phase == Phase::Error { Phase::Error } else { Phase::Failed };
            return Ok(self.end(&call.name, phase_of_dag, &format!("child '{id}' {}", word(phase))));
        }
        let mut scope = Scope::inside(&frame.scope);
        for task in &dag.tasks {
            self.set_outputs(&mut scope, "tasks", &task.name, &graph.node(&task.name), task);
        }
        let outputs = self.composed_outputs(&frame.template.outputs, &scope)?;
        Ok(self.end_with(&call.name, Phase::Succeeded, "", outputs))
    }

    /// Goes as far with a task as it goes now, after all that it depends on.
    fn task(&mut self, graph: &Graph<'_>, name: &str, frame: &Frame, walk: &mut Walk) -> Result<(), String> {
        let Some((task, needs)) = graph.tasks.get(name) else {
            return Err(format!("there is no task {name:?}"));
        };
        let all_done = needs.tasks().iter().all(|need| walk.done.contains(*need));
        let node = graph.node(name);
        if !self.nodes.contains_key(&node) {
            if !all_done {
                return Ok(());
            }
            let answer = |task: &str, question: Question| self.answer(&graph.node(task), question);
            if !needs.holds(&answer) {
                let call = Call::group(&node, name, graph.dag, graph.dag);
                self.begin(&call, NodeKind::Skipped, Phase::Omitted);
                self.set_message(&node, "omitted: depends condition not met");
                walk.done.insert(name.to_owned());
                return Ok(());
            }
            if walk.is_stopped {
                return Ok(());
            }
        }
        let mut scope = Scope::inside(&frame.scope);
        let has_ended = self.phase_of(&node).is_some_and(Phase::is_fulfilled);
        if !has_ended || !task.hooks.is_empty() || !task.on_exit.is_empty() {
            for ancestor in graph.ancestors(name) {
                if let Some((step, _)) = graph.tasks.get(ancestor) {
                    self.set_outputs(&mut scope, "tasks", ancestor, &graph.node(ancestor), step);
                }
            }
        }
        let inner = Frame { scope: Arc::new(scope), ..frame.clone() };
        if self.run_task(graph, task, &node, &inner) {
            walk.done.insert(name.to_owned());
        }
        Ok(())
    }

    /// Whether the task is done, hooks and all.
    fn run_task(&mut self, graph: &Graph<'_>, task: &Step, node: &str, frame: &Frame) -> bool {
        let group = Call::group(node, &task.name, graph.dag, graph.dag);
        let ended = self.nodes.get(node).filter(|node| node.phase.is_fulfilled()).map(|node| node.kind);
        if let Some(NodeKind::TaskGroup | NodeKind::Skipped) = ended {
            return true;
        }
        let items = match self.items(node, task, frame) {
            Ok(Items::Single) => {
                let (_, is_done) = self.child(node, &task.name, task, None, frame, (graph.dag, graph.dag));
                return is_done;
            }
            Ok(Items::None) => {
                self.skip(&group, "Skipped, empty params");
                return true;
            }
            Ok(Items::Many(items)) => items,
            Err(message) => {
                self.fail_to_begin(&group, &message);
                return true;
            }
        };
        if !self.nodes.contains_key(node) {
            self.begin(&group, NodeKind::TaskGroup, Phase::Running);
        }
        let children = super::expand::children(node, &task.name, &items);
        let stops = frame.template.fail_fast == Some(true);
        let has_failed =
            stops && children.iter().any(|(name, ..)| self.phase_of(name).is_some_and(Phase::is_failed));
        let mut all_done = true;
        let mut failed: Option<(Phase, String)> = None;
        for (name, display, item) in children {
            if has_failed && !self.nodes.contains_key(&name) {
                continue;
            }
            let (phase, is_done) = self.child(&name, &display, task, item.as_ref(), frame, (graph.dag, node));
            all_done &= is_done;
            if phase.is_failed() {
                let id = self.nodes.get(&name).map(|node| node.id.clone()).unwrap_or_default();
                failed.get_or_insert((phase, format!("child '{id}' {}", word(phase))));
            }
        }
        if !all_done {
            return false;
        }
        match failed {
            Some((phase, message)) => self.end(node, phase, &message),
            None => self.end(node, Phase::Succeeded, ""),
        };
        true
    }

    fn answer(&self, node: &str, question: Question) -> bool {
        let Some(found) = self.nodes.get(node) else { return false };
        let items = || self.children_of(node);
        match question {
            Question::Usual => matches!(found.phase, Phase::Succeeded | Phase::Skipped),
            Question::Is(phase) => found.phase == phase,
            Question::AnySucceeded if found.kind == NodeKind::TaskGroup => {
                items().any(|item| item.phase == Phase::Succeeded)
            }
            Question::AllFailed if found.kind == NodeKind::TaskGroup => {
                items().all(|item| item.phase.is_failed())
            }
            Question::AnySucceeded => found.phase == Phase::Succeeded,
            Question::AllFailed => found.phase.is_failed(),
            Question::Daemoned => false,
        }
    }

    /// The task whose failure is that of this one: itself, or what made it be omitted.
    fn branch_failure<'a>(
        &self,
        graph: &'a Graph<'_>,
        name: &'a str,
        excuse: &impl Fn(&str, bool) -> bool,
    ) -> Option<String> {
        let (mut open, mut seen) = (vec![name], HashSet::new());
        while let Some(name) = open.pop() {
            let Some(phase) = self.phase_of(&graph.node(name)).filter(|_| seen.insert(name)) else {
                continue;
            };
            if phase.is_failed() && !excuse(name, phase == Phase::Error) {
                return Some(name.to_owned());
            }
            if matches!(phase, Phase::Omitted | Phase::Skipped) {
                let needs = graph.tasks.get(name).map(|(_, needs)| needs.tasks()).unwrap_or_default();
                open.extend(needs.into_iter().rev());
            }
        }
        None
    }
}

// === impl Graph ===

impl<'a> Graph<'a> {
    fn node(&self, task: &str) -> String {
        format!("{}.{task}", self.dag)
    }

    /// These tasks and all that they depend on, each behind what it depends on. A chain may be as long as a workflow, so
    /// there is no recursion.
    fn in_order<'b>(&'b self, targets: &'b [String]) -> Result<Vec<&'b str>, String> {
        let (mut order, mut is_placed) = (Vec::new(), HashMap::new());
        for target in targets {
            let mut open = vec![(target.as_str(), false)];
            while let Some((name, has_needs)) = open.pop() {
                if has_needs {
                    is_placed.insert(name, true);
                    order.push(name);
                    continue;
                }
                match is_placed.get(name) {
                    Some(true) => continue,
                    Some(false) => return Err(format!("task {name:?} depends on itself")),
                    None => is_placed.insert(name, false),
                };
                let (_, needs) = self.tasks.get(name).ok_or_else(|| format!("there is no task {name:?}"))?;
                open.push((name, true));
                open.extend(needs.tasks().into_iter().rev().map(|need| (need, false)));
            }
        }
        Ok(order)
    }

    /// All that a task depends on, near or far.
    fn ancestors(&self, name: &str) -> Vec<&str> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let mut open: Vec<&str> = self.tasks.get(name).map(|(_, needs)| needs.tasks()).unwrap_or_default();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                found.push(next);
                open.extend(self.tasks.get(next).map(|(_, needs)| needs.tasks()).unwrap_or_default());
            }
        }
        found
    }

    /// Whether the failure of a task lets another one run.
    fn is_asked_about(&self, name: &str) -> bool {
        let fails = |task: &str, question: Question| {
            task != name
                || matches!(question, Question::Is(Phase::Failed | Phase::Error) | Question::AllFailed)
        };
        let mut others = self.tasks.values().filter(|(_, needs)| needs.tasks().contains(&name));
        others.any(|(_, needs)| needs.holds(&fails))
    }
}
