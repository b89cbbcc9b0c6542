-- How many replicas an InferenceService asks for, and what one of them needs.
-- Never 0: Karmada takes an object without replicas for one that is copied to every cluster unchanged.
local kube = require("kube")

function GetReplicas(desiredObj)
  local predictor = desiredObj.spec.predictor
  local replicas = predictor.minReplicas or 1
  if replicas < 1 then
    replicas = 1
  end
  -- The kind has no pod template: the predictor is a pod spec with the container under `model`.
  local container = { name = "kserve-container" }
  if predictor.model ~= nil then
    container.resources = predictor.model.resources
  end
  local template = {
    spec = {
      containers = { container },
      nodeSelector = predictor.nodeSelector,
      tolerations = predictor.tolerations,
      affinity = predictor.affinity,
      priorityClassName = predictor.priorityClassName
    }
  }
  return replicas, kube.accuratePodRequirements(template)
end
