"""VQL: one JSON query language for exports, record search and list filters (docs/vql.md)."""
