//! Ordered key-value storage with revisions, compare-and-swap transactions, ranges and watches.
