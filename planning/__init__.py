"""Pure arithmetic about a fleet: no Pulumi, no network, no files. Specs call it to validate, components to decide."""
