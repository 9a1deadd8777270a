//! In which layers of a manifest its module is, by what the manifest says. Who pulls a module and who examines one that
//! is pushed ask here, so that both find the same one.

use crate::manifest::{Descriptor, Manifest};
use crate::media_type::LayerKind;

/// A place to look for the module in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// This layer is it.
    Layer(&'a Descriptor),
    /// This layer is it if it begins like WebAssembly: whoever pushed it called it so.
    Named(&'a Descriptor),
    /// A file in the layers together.
    Image,
}

/// The places, in the order in which they count. The error says why there is none, or none behind those before it.
pub(crate) fn places(manifest: &Manifest) -> (Vec<Place<'_>>, Option<String>) {
    let of_kind = |kind: LayerKind| {
        manifest.layers.iter().filter(move |layer| LayerKind::of(&layer.media_type) == kind)
    };
    let wasm: Vec<&Descriptor> = of_kind(LayerKind::Wasm).collect();
    match wasm.as_slice() {
        [layer] => return (vec![Place::Layer(layer)], None),
        [] => {}
        layers => {
            let reason =
                format!("it holds {} modules, and an artifact of several cannot be run", layers.len());
            return (Vec::new(), Some(reason));
        }
    }
    let mut places = Vec::new();
    // Tools that push any file give it its name.
    let is_named = |layer: &&Descriptor| {
        layer.annotation("org.opencontainers.image.title").is_some_and(|title| title.ends_with(".wasm"))
    };
    let mut named = manifest.layers.iter().filter(is_named);
    if let (Some(layer), None) = (named.next(), named.next()) {
        places.push(Place::Named(layer));
    }
    if of_kind(LayerKind::Tar).count() == manifest.layers.len() && !manifest.layers.is_empty() {
        places.push(Place::Image);
        return (places, None);
    }
    match manifest.layers.as_slice() {
        [layer] => {
            places.push(Place::Layer(layer));
            (places, None)
        }
        layers => {
            let kinds: Vec<&str> = layers.iter().take(5).map(|layer| layer.media_type.as_str()).collect();
            let reason = format!(
                "it is neither a Wasm artifact nor an image: its configuration is {:?}, its layers are {}",
                manifest.config.media_type.chars().take(100).collect::<String>(),
                if kinds.is_empty() { "none".to_owned() } else { format!("{kinds:?}") }
            );
            (places, Some(reason))
        }
    }
}
