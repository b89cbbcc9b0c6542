"""What each control plane must be set to: one module per control plane, plain data.

From the settings of a module follow the flags and files of our own installations, the values of its Helm chart, the checks of a
control plane that somebody else installed, and docs/existing-clusters.md. How something is read from a cluster is
federation/verification.py; which process gets which port and certificate is local/.
"""
