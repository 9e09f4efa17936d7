use serde::Serialize;

/// A value as one YAML document, such as a document fetched from the registry as JSON.
pub fn emit(value: &impl Serialize) -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(value)
}
