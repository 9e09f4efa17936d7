//! YAML as written, to the model: all problems at once, each with its place.
