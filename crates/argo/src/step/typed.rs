//! The step as a call: values go in and come out, where a program has arguments and files.

use super::captured::MAX_RESULT;
use super::earlier::Said;
use super::room::MAX_PARAMETER;
use crate::artifacts::Artifact;
use crate::controller::{Identity, Start};
use crate::node::Phase;
use dhow_guest::step::{Artifact as Place, Input, Output, Parameter};

/// What the step is given.
pub(super) fn input(workflow: &Identity, start: &Start) -> Input {
    let place = |artifact: &Artifact| Place { name: artifact.name.clone(), path: artifact.path.clone() };
    let template = &start.template;
    let parameters = template.inputs.parameters.iter().map(|parameter| Parameter {
        name: parameter.name.clone(),
        value: parameter.value.clone().unwrap_or_default(),
    });
    Input {
        workflow: workflow.name.clone(),
        step: start.name.clone(),
        parameters: parameters.collect(),
        artifacts: template.inputs.artifacts.iter().map(place).collect(),
        outputs: template.outputs.artifacts.iter().map(place).collect(),
    }
}

/// What the step said; an error if that is too much.
pub(super) fn said(answer: Result<Output, String>) -> Result<Said, String> {
    let output = match answer {
        Ok(output) => output,
        Err(message) => {
            return Ok(Said { phase: Phase::Failed, message, ..Said::default() });
        }
    };
    if output.result.as_ref().is_some_and(|result| result.len() > MAX_RESULT) {
        return Err(format!("the result has more than {MAX_RESULT} bytes; make it an artifact"));
    }
    let is_large = |parameter: &&Parameter| parameter.value.len() as u64 > MAX_PARAMETER;
    if let Some(parameter) = output.parameters.iter().find(is_large) {
        return Err(format!(
            "output parameter {:?} has more than {MAX_PARAMETER} bytes; make it an artifact",
            parameter.name
        ));
    }
    Ok(Said {
        phase: Phase::Succeeded,
        message: output.message,
        parameters: output
            .parameters
            .into_iter()
            .map(|parameter| (parameter.name, parameter.value))
            .collect(),
        result: output.result,
        artifacts: output.artifacts.into_iter().map(|artifact| (artifact.name, artifact.path)).collect(),
    })
}
