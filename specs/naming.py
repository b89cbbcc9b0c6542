"""Length limits of names, and where they come from. Nothing is shortened: a name that is too long is refused."""

# Limits of Kubernetes: of a label's value, and so of a Service (DNS label).
LABEL_LIMIT = 63
# Karmada's namespace of a cluster on the hub is this and the cluster's name, for which it leaves so many characters.
EXECUTION_SPACE = "karmada-es-"
CLUSTER_LIMIT = 48
# KServe writes the label `app: isvc.<name>-predictor` on pods, which must stay within LABEL_LIMIT.
MODEL_LIMIT = LABEL_LIMIT - len("isvc.") - len("-predictor")

# Credentials of members; `karmadactl join` uses the same name on both sides.
CLUSTER_NAMESPACE = "karmada-cluster"
