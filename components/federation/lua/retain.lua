-- What stays as the member has it. Karmada labels the object with ids of the policy, the binding and the work, which are
-- new when one of those is made anew. KServe copies labels to the pods: a new id would restart every GPU pod of the model.
function Retain(desiredObj, observedObj)
  local held = observedObj.metadata.labels
  if held == nil then
    return desiredObj
  end
  local ids = {
    "propagationpolicy.karmada.io/permanent-id",
    "clusterpropagationpolicy.karmada.io/permanent-id",
    "resourcebinding.karmada.io/permanent-id",
    "work.karmada.io/permanent-id",
  }
  if desiredObj.metadata.labels == nil then
    desiredObj.metadata.labels = {}
  end
  for i = 1, #ids do
    if held[ids[i]] ~= nil then
      desiredObj.metadata.labels[ids[i]] = held[ids[i]]
    end
  end
  return desiredObj
end
