module inference-fleet/dataplane

go 1.26.0
