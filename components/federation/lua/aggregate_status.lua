-- The status of the InferenceService on the hub.
-- Ready: at least one cluster serves the present version. A region that is away must not hold up an update of the fleet.
-- AllClustersReady: every scheduled cluster does. clusterStatuses: one line for each of them.
local function condition(previous, kind, ok, reason, message)
  local status = "False"
  if ok then
    status = "True"
  end
  local result = { type = kind, status = status, reason = reason, message = message }
  result.lastTransitionTime = os.date("!%Y-%m-%dT%H:%M:%SZ")
  -- Without this the status would change with every look at it, and Karmada would write it for ever.
  if previous ~= nil then
    for _, before in ipairs(previous) do
      if before.type == kind and before.status == status and before.lastTransitionTime ~= nil then
        result.lastTransitionTime = before.lastTransitionTime
      end
    end
  end
  return result
end

function AggregateStatus(desiredObj, statusItems)
  local previous = desiredObj.status or {}
  local generation = desiredObj.metadata.generation or 0
  local status = {}
  local clusters = {}
  local ready = 0
  local waiting = ""
  if statusItems ~= nil then
    for _, item in ipairs(statusItems) do
      local member = item.status or {}
      local entry = { name = item.clusterName, ready = false, replicas = member.replicas or 0 }
      -- Where the member refused the object or could not be reached. A false `applied` does not get here: JSON omits it.
      if not item.applied and item.appliedMessage ~= nil and item.appliedMessage ~= "" then
        entry.message = item.appliedMessage
      elseif member.ready and member.resourceTemplateGeneration ~= generation then
        entry.message = "ready with an earlier version"
      elseif member.ready then
        entry.ready = true
      else
        entry.message = member.message or "no status yet"
      end
      if entry.ready then
        ready = ready + 1
        status.url = status.url or member.url
      else
        waiting = waiting .. (waiting ~= "" and "; " or "") .. entry.name .. ": " .. entry.message
      end
      table.insert(clusters, entry)
    end
  end
  local message = ready .. " of " .. #clusters .. " clusters ready"
  if waiting ~= "" then
    message = message .. "; " .. waiting
  end
  local reason = "ClustersReady"
  if #clusters == 0 then
    reason = "NotScheduled"
    message = "no cluster holds this model yet"
  elseif ready == 0 then
    reason = "NoClusterReady"
  elseif ready < #clusters then
    reason = "SomeClustersReady"
  end
  status.conditions = {
    condition(previous.conditions, "Ready", ready > 0, reason, message),
    condition(previous.conditions, "AllClustersReady", #clusters > 0 and ready == #clusters, reason, message)
  }
  if #clusters > 0 then
    status.clusterStatuses = clusters
  end
  -- Who waits for Ready compares this with metadata.generation, so a Ready of the version before does not count.
  if ready > 0 then
    status.observedGeneration = generation
  else
    status.observedGeneration = previous.observedGeneration
  end
  desiredObj.status = status
  return desiredObj
end
