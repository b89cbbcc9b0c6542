-- What must travel with an InferenceService: what its pods name, the secret of its storage, the claim of a `pvc://` source.
-- Objects that the hub does not hold are passed over by Karmada: a member may have its own.
local kube = require("kube")

function GetDependencies(desiredObj)
  local namespace = desiredObj.metadata.namespace
  local predictor = desiredObj.spec.predictor
  local container = { name = "kserve-container" }
  local model = predictor.model
  if model ~= nil then
    container.env = model.env
    container.envFrom = model.envFrom
    container.volumeMounts = model.volumeMounts
  end
  local template = {
    spec = {
      containers = { container },
      volumes = predictor.volumes,
      serviceAccountName = predictor.serviceAccountName,
      imagePullSecrets = predictor.imagePullSecrets
    }
  }
  local dependencies = kube.getPodDependencies(template, namespace) or {}
  if model ~= nil then
    if model.storage ~= nil and model.storage.key ~= nil then
      -- KServe's fixed name of the secret that holds storage credentials by key.
      table.insert(dependencies, { apiVersion = "v1", kind = "Secret", namespace = namespace, name = "storage-config" })
    end
    if model.storageUri ~= nil then
      local claim = string.match(model.storageUri, "^pvc://([^/]+)")
      if claim ~= nil then
        table.insert(dependencies, { apiVersion = "v1", kind = "PersistentVolumeClaim", namespace = namespace, name = claim })
      end
    end
  end
  return dependencies
end
