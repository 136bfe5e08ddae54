"""The search mirror: rows of tables as documents of an Elasticsearch or OpenSearch server."""
