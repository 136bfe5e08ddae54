"""Document 004's product: the Connectra job API (docs/wire/connectra.md)."""
