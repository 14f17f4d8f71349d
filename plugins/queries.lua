-- C-FIND and worklist queries, one line of JSON each, for the journal (Orthanc shows them to Lua alone).
-- A query is returned unchanged, whatever happens here: recording must never cost a modality its answer.

local path = (os.getenv("ZAMBEZI_NODE_HOME") or os.getenv("ZAMBEZI_HOME") or "data") .. "/plugin/queries.log"
local maximum = 4000000  -- bytes; the journal takes the file away several times a second

local function record(kind, query, origin)
  local file = io.open(path, "a")
  if file == nil then return end
  if file:seek("end") < maximum then
    file:write(DumpJson({
      kind = kind, at = os.time(), aet = origin["RemoteAet"] or "", ip = origin["RemoteIp"] or "",
      called_aet = origin["CalledAet"] or "", query = query }, true), "\n")
  end
  file:close()
end

function IncomingFindRequestFilter(query, origin)
  local ok, fault = pcall(record, "find", query, origin)
  if not ok then print("zambezi: a query was not recorded: " .. tostring(fault)) end
  return query
end

function IncomingWorklistRequestFilter(query, origin)
  local ok, fault = pcall(record, "worklist", query, origin)
  if not ok then print("zambezi: a worklist query was not recorded: " .. tostring(fault)) end
  return query
end
