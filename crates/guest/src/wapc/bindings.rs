//! Which component a capability of an app leads to, by the name of the binding.

use crate::setup::CapabilityBinding;
use dhow_blocks::scope::Providers;
use std::collections::BTreeMap;

/// The binding that is meant where none is named.
pub(crate) const DEFAULT: &str = "default";

/// The bindings of an app.
#[derive(Default)]
pub(super) struct Bindings(Vec<CapabilityBinding>);

/// Where calls of a capability go.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Target<'a> {
    pub(super) component: &'a str,
    values: Option<&'a BTreeMap<String, String>>,
}

impl Bindings {
    pub(super) fn new(bindings: Vec<CapabilityBinding>) -> Bindings {
        Bindings(bindings)
    }

    /// The component of a binding. Without any binding of the capability the usual one serves; a name that is not among
    /// those there are is an error.
    pub(super) fn find<'a>(
        &'a self,
        capability: &str,
        binding: &str,
        usual: impl FnOnce() -> Option<&'a str>,
    ) -> Result<Target<'a>, String> {
        let wanted = if binding.is_empty() { DEFAULT } else { binding };
        let of_capability = || self.of(capability);
        if let Some(found) = of_capability().find(|found| found.name == wanted) {
            let component = match &found.component {
                Some(component) => component.as_str(),
                None => usual().ok_or_else(|| unbound(capability, wanted))?,
            };
            return Ok(Target { component, values: Some(&found.values) });
        }
        if wanted != DEFAULT {
            let known: Vec<&str> = of_capability().map(|known| known.name.as_str()).collect();
            let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
            return Err(format!(
                "this app has no binding {wanted:?} of {capability} ({known}); add it to its [[bindings]]"
            ));
        }
        let component = usual().ok_or_else(|| unbound(capability, wanted))?;
        Ok(Target { component, values: None })
    }

    /// All bindings of a capability.
    pub(super) fn of(&self, capability: &str) -> impl Iterator<Item = &CapabilityBinding> {
        self.0.iter().filter(move |binding| binding.capability == capability)
    }

    /// The app that a name means: names and keys of modules may be given in the configuration.
    pub(super) fn app<'a>(&'a self, name: &'a str) -> &'a str {
        let named = |binding: &&CapabilityBinding| binding.name == name;
        self.of("actor").find(named).and_then(|binding| binding.component.as_deref()).unwrap_or(name)
    }
}

fn unbound(capability: &str, binding: &str) -> String {
    format!(
        "this app's binding {binding:?} of {capability} leads to no component; name one in its [[bindings]]"
    )
}

impl Target<'_> {
    /// A value of the binding, upper and lower case being the same.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        value(self.values?, name)
    }
}

/// A value, upper and lower case being the same.
pub(super) fn value<'a>(values: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    values.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The store of files and objects that an app gets when it names none: the only one.
pub(super) fn only_blobs(providers: &Providers) -> Option<&str> {
    let mut names = providers.blobs.keys();
    names.next().filter(|_| names.next().is_none()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(name: &str, component: Option<&str>) -> CapabilityBinding {
        CapabilityBinding {
            capability: "keyvalue".to_owned(),
            name: name.to_owned(),
            component: component.map(str::to_owned),
            values: [("Url".to_owned(), "x".to_owned())].into(),
        }
    }

    #[test]
    fn a_capability_may_have_several_bindings() {
        let none = Bindings::default();
        let find = |bindings: &Bindings, name: &str| {
            bindings.find("keyvalue", name, || Some("statestore")).map(|target| target.component.to_owned())
        };
        for name in ["", "default"] {
            assert_eq!(find(&none, name).unwrap(), "statestore");
        }
        assert!(find(&none, "other").unwrap_err().contains("there is none"));
        let two = Bindings::new(vec![binding("default", Some("redis")), binding("audit", None)]);
        assert_eq!(find(&two, "").unwrap(), "redis");
        assert_eq!(find(&two, "audit").unwrap(), "statestore");
        assert!(find(&two, "x").unwrap_err().contains("default, audit"));
        let found = two.find("keyvalue", "audit", || Some("s")).unwrap();
        assert_eq!((found.value("URL"), found.value("PORT")), (Some("x"), None));
        assert!(two.find("blobstore", "", || None).is_err());
    }
}
