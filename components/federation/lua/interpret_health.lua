-- Whether a copy serves. Karmada's graceful eviction keeps the old copy until this is true for the new one; a kind without
-- this rule counts as healthy at once, and the old copy would go minutes before the new model is loaded.
-- observedGeneration is not compared: KServe writes the generation of its Deployment there.
function InterpretHealth(observedObj)
  if observedObj == nil or observedObj.status == nil or observedObj.status.conditions == nil then
    return false
  end
  local model = observedObj.status.modelStatus
  if model ~= nil and (model.transitionStatus == "BlockedByFailedLoad" or model.transitionStatus == "InvalidSpec") then
    return false
  end
  for _, condition in ipairs(observedObj.status.conditions) do
    if condition.type == "Ready" then
      return condition.status == "True"
    end
  end
  return false
end
