"""Models as OCI artifacts: a directory checked and packed, a registry that takes and gives it. docs/model-artifacts.md.

From the inside out: safetensors.py reads the header of a weight file, model.py checks a directory and computes the planner's
facts, blobs.py makes layers that are never held in memory, image.py the manifests, base.py an image below them, layout.py and registry.py are the two places
where an artifact can lie, store.py reads either, transfer.py moves.
"""
