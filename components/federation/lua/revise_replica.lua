-- The InferenceService as one cluster gets it: its share of the replicas, and of the room to scale.
function ReviseReplica(desiredObj, desiredReplica)
  local predictor = desiredObj.spec.predictor
  local total = predictor.minReplicas or 1
  if total < 1 then
    total = 1
  end
  -- Undivided, every cluster could scale to the whole maximum. 0 means without a limit.
  if predictor.maxReplicas ~= nil and predictor.maxReplicas > 0 then
    local share = math.ceil(predictor.maxReplicas * desiredReplica / total)
    predictor.maxReplicas = math.max(share, desiredReplica)
  end
  predictor.minReplicas = desiredReplica
  return desiredObj
end
