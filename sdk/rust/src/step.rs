//! A step of an Argo Workflow as a function: values in, values out, files beside them.
//!
//! `dhow workflow run`, its workers and the executor plugin call it in the place of a program's `main`.

/// Bindings of the one call.
#[doc(hidden)]
#[allow(missing_docs)]
pub mod step_app {
    wit_bindgen::generate!({ path: "wit-step", world: "dhow:step/app", pub_export_macro: true });
}

use step_app::exports::dhow::step::step as wit;

/// What a step is given.
#[derive(Clone, Debug)]
pub struct StepInput {
    /// Name of the workflow.
    pub workflow: String,
    /// Name of the step in it; different for each retry.
    pub step: String,
    /// Names and values of parameters.
    pub parameters: Vec<(String, String)>,
    /// Names of artifacts, and the paths where they lie.
    pub artifacts: Vec<(String, String)>,
    /// Names of artifacts that are expected, and the paths where they are looked for.
    pub outputs: Vec<(String, String)>,
}

/// What a step yields.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    result: Option<String>,
    parameters: Vec<(String, String)>,
    artifacts: Vec<(String, String)>,
    message: String,
}

/// Makes the component a step with a function `fn(StepInput) -> Result<StepOutput, E>`. The error's text is why the step
/// failed. Once in a component.
#[macro_export]
macro_rules! step {
    ($run:path) => {
        const _: () = {
            use $crate::bindings::step_app::exports::dhow::step::step as wit;

            struct Step;

            impl wit::Guest for Step {
                fn run(input: wit::Input) -> ::std::result::Result<wit::Output, ::std::string::String> {
                    $run($crate::StepInput::from(input))
                        .map(|output: $crate::StepOutput| wit::Output::from(output))
                        .map_err(|error| ::std::string::ToString::to_string(&error))
                }
            }

    $crate::bindings::step_app::export!(Step with_types_in $crate::bindings::step_app);
        };
    };
}

// === impl StepInput ===

impl StepInput {
    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        find(&self.parameters, name)
    }

    /// Where an artifact lies.
    pub fn artifact(&self, name: &str) -> Option<&str> {
        find(&self.artifacts, name)
    }

    /// Where an artifact is looked for, unless the output says another place.
    pub fn output(&self, name: &str) -> Option<&str> {
        find(&self.outputs, name)
    }
}

impl From<wit::Input> for StepInput {
    fn from(input: wit::Input) -> StepInput {
        let places = |list: Vec<wit::Artifact>| list.into_iter().map(|one| (one.name, one.path)).collect();
        StepInput {
            workflow: input.workflow,
            step: input.step,
            parameters: input.parameters.into_iter().map(|one| (one.name, one.value)).collect(),
            artifacts: places(input.artifacts),
            outputs: places(input.outputs),
        }
    }
}

// === impl StepOutput ===

impl StepOutput {
    /// Nothing yet: the result is what was printed.
    pub fn new() -> StepOutput {
        StepOutput::default()
    }

    /// The step's result, in the place of what was printed.
    pub fn result(self, result: impl Into<String>) -> StepOutput {
        StepOutput { result: Some(result.into()), ..self }
    }

    /// An output parameter.
    pub fn parameter(mut self, name: impl Into<String>, value: impl ToString) -> StepOutput {
        self.parameters.push((name.into(), value.to_string()));
        self
    }

    /// An artifact that does not lie where the template says.
    pub fn artifact(mut self, name: impl Into<String>, path: impl Into<String>) -> StepOutput {
        self.artifacts.push((name.into(), path.into()));
        self
    }

    /// A message for people.
    pub fn message(self, message: impl Into<String>) -> StepOutput {
        StepOutput { message: message.into(), ..self }
    }
}

impl From<StepOutput> for wit::Output {
    fn from(output: StepOutput) -> wit::Output {
        let StepOutput { result, parameters, artifacts, message } = output;
        let parameters = parameters.into_iter().map(|(name, value)| wit::Parameter { name, value }).collect();
        let artifacts = artifacts.into_iter().map(|(name, path)| wit::Artifact { name, path }).collect();
        wit::Output { result, parameters, artifacts, message }
    }
}

fn find<'a>(list: &'a [(String, String)], name: &str) -> Option<&'a str> {
    list.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}
