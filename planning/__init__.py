"""Pure arithmetic about a fleet: no Pulumi, no network, no files but the catalogue of GPU types and prices. Specs call it to validate, components to decide."""
