//! Components are opened by type; mistakes in them are named.

use dhow_providers::registry::{
    ComponentSpec, OpenContext, OpenError, Opened, open, provider, unknown_fields,
};
use std::path::Path;

fn component(component_type: &str, version: &str, metadata: &[(&str, &str)]) -> ComponentSpec {
    ComponentSpec {
        name: "store".to_owned(),
        component_type: component_type.to_owned(),
        version: version.to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    }
}

async fn open_in(component: &ComponentSpec, folder: &Path) -> Result<Opened, OpenError> {
    open(component.clone(), OpenContext { data_dir: folder.to_owned() }).await
}

async fn error(component: &ComponentSpec) -> OpenError {
    open_in(component, Path::new("unused")).await.err().unwrap()
}

#[tokio::test]
async fn an_unknown_type_names_the_nearest() {
    for (component_type, expected) in [
        ("state.inmemory", Some("state.in-memory")),
        ("state.in_memory", Some("state.in-memory")),
        ("", None),
        ("workflow", None),
        ("🐪", None),
    ] {
        match error(&component(component_type, "v1", &[])).await {
            OpenError::UnknownType { nearest, known, .. } => {
                assert_eq!(nearest, expected, "{component_type}");
                assert!(known.contains(&"state.in-memory"));
            }
            other => panic!("{component_type}: {other}"),
        }
    }
}

#[cfg(feature = "postgresql")]
#[test]
fn types_have_other_names() {
    for (component_type, version, expected) in [
        ("state.postgres", "v2", "state.postgresql"),
        ("bindings.postgres", "v1", "bindings.postgresql"),
        ("Configuration.Postgres", "", "configuration.postgresql"),
        ("state.yugabyte", "", "state.yugabytedb"),
    ] {
        let found = provider(&component(component_type, version, &[])).unwrap();
        assert_eq!(found.component_type, expected);
    }
}

#[tokio::test]
async fn versions() {
    for version in ["", "v1", "V1"] {
        assert!(
            open_in(&component("state.in-memory", version, &[]), Path::new("unused")).await.is_ok(),
            "{version}"
        );
    }
    let error = error(&component("state.in-memory", "v9", &[])).await;
    assert!(matches!(error, OpenError::UnknownVersion { .. }), "{error}");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_unknown_field_is_reported_and_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let fields = [
        ("conectionString", "x", Some("connectionString")),
        ("busytimeot", "1s", Some("busyTimeout")),
        ("wholly other", "x", None),
    ];
    for (field, value, nearest) in fields {
        let component = component("state.sqlite", "v1", &[(field, value), ("KEYPREFIX", "none")]);
        let unknown = unknown_fields(&component).unwrap();
        assert_eq!(unknown.len(), 1, "{unknown:?}");
        assert_eq!((unknown[0].field.as_str(), unknown[0].nearest), (field, nearest));
        assert!(open_in(&component, folder.path()).await.is_ok());
    }
    assert!(folder.path().join("store.db").is_file(), "without a path the file is named after the component");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_bad_value_names_the_field_but_not_the_value() {
    for (field, value, named) in [
        ("timeout", "hunter2", "timeout"),
        ("timeoutInSeconds", "hunter2", "timeout"),
        ("timeout", "10ms", "timeout"),
        ("busyTimeout", "hunter2", "busyTimeout"),
        ("cleanupInterval", "hunter2", "cleanupInterval"),
        ("url", "file://hunter2/x", "connectionString"),
        ("connectionString", "hunter2?mode=ro", "connectionString"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let component = component("state.sqlite", "v1", &[(field, value)]);
        let error = open_in(&component, folder.path()).await.err().unwrap();
        assert!(
            matches!(&error, OpenError::InvalidMetadata { field, .. } if field == named),
            "{field}: {error}"
        );
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_table_name_cannot_carry_sql() {
    for table in ["a b", "a\"; DROP TABLE state; --", "sqlite_schema", "ä", "a.b"] {
        let folder = tempfile::tempdir().unwrap();
        let error = open_in(&component("state.sqlite", "v1", &[("tableName", table)]), folder.path()).await;
        assert!(matches!(error.err().unwrap(), OpenError::Backend { .. }), "{table}");
    }
}
