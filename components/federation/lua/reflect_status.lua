-- What the hub keeps of a member's status. The keys are read by aggregate_status.lua.
-- status.observedGeneration is left out: KServe writes the generation of its Deployment there, not of the InferenceService.
function ReflectStatus(observedObj)
  local status = { ready = false }
  if observedObj == nil then
    return status
  end
  if observedObj.spec ~= nil and observedObj.spec.predictor ~= nil then
    status.replicas = observedObj.spec.predictor.minReplicas
  end
  if observedObj.metadata ~= nil and observedObj.metadata.annotations ~= nil then
    -- Which version of the hub's object this member works on. Karmada writes it into every copy.
    status.resourceTemplateGeneration = tonumber(observedObj.metadata.annotations["resourcetemplate.karmada.io/generation"])
  end
  if observedObj.status == nil then
    status.message = "not reconciled by KServe yet"
    return status
  end
  status.url = observedObj.status.url
  if observedObj.status.conditions ~= nil then
    for _, condition in ipairs(observedObj.status.conditions) do
      if condition.type == "Ready" then
        status.ready = condition.status == "True"
        if not status.ready then
          status.message = condition.message or condition.reason
        end
      end
    end
  end
  local model = observedObj.status.modelStatus
  if model ~= nil then
    status.transition = model.transitionStatus
    if model.lastFailureInfo ~= nil and not status.ready then
      status.message = model.lastFailureInfo.message or model.lastFailureInfo.reason or status.message
    end
  end
  return status
end
