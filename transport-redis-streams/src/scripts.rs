//! What has to look and act in one step on the server.
//!
//! Always sent whole: the server knows a script again by its text, and they are short and rare.
//! All but [`APPEND_ALL`] run on one stream, or on one and its lease beside it, so they run on a
//! cluster too.

use crate::client::Cmd;
use crate::reply::EntryId;

/// The first arguments of a script: the group and the member.
macro_rules! for_each_entry {
    ($own:literal) => {
        concat!(
            "local results = {}\n",
            "for i = 3, #ARGV do\n",
            "  local id = ARGV[i]\n",
            "  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]\n",
            "  if not pending then\n",
            "    results[i - 2] = 2\n",
            "  elseif pending[2] ~= ARGV[2] then\n",
            "    results[i - 2] = 0\n",
            "  else\n",
            $own,
            "\n    results[i - 2] = 1\n",
            "  end\n",
            "end\n",
            "return results\n",
        )
    };
}

/// Acknowledges the entries that are the member's. Answers a [`Possession`] for each.
pub(crate) const ACK: &str = for_each_entry!("redis.call('XACK', KEYS[1], ARGV[1], id)");

/// Stores an entry in the second stream and acknowledges one of the first that is the member's, in
/// one step. Behind the group, the member and the id stand the names and values of the fields.
/// Answers a [`Possession`].
pub(crate) const FORWARD: &str = "\
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not pending then
  return 2
elseif pending[2] ~= ARGV[2] then
  return 0
end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
return 1
";

/// What a start that was noted adds to the count of deliveries of an entry. Nothing is delivered
/// so often; so the server needs no other place for it, and forgets it with the entry.
pub(crate) const STARTS: u64 = 1_000_000;

/// Notes that an entry is about to be handled, if it is the member's. Answers the count before,
/// or -1.
pub(crate) const BEGIN: &str = "\
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not pending or pending[2] ~= ARGV[2] then
  return -1
end
local count = string.format('%d', pending[4] + 1000000)
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', count, 'JUSTID')
return pending[4]
";

/// Makes the entries that are the member's look as if nobody had touched them since 1970, so
/// that the next walk of any member takes them, and as if no start had been noted: the member that
/// gives them back lives. Answers a [`Possession`] for each.
pub(crate) const RELEASE: &str = for_each_entry!(
    "local count = string.format('%d', pending[4] % 1000000)
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'TIME', 0, 'RETRYCOUNT', count, 'JUSTID')"
);

/// Makes the entries that are the member's look as if they had been delivered now. Answers a
/// [`Possession`] for each.
pub(crate) const REFRESH: &str =
    for_each_entry!("redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID')");

/// Delivers entries again that are the member's, and counts it. Answers `[id, count, entry]` for
/// each; an entry that was deleted from the stream is false, and not pending any more.
pub(crate) const TAKE_OWN: &str = "\
local taken = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])[1]
  if pending then
    local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)[1]
    taken[#taken + 1] = {id, pending[4] + 1, entry or false}
  end
end
return taken
";

/// Releases one page of what is pending for the member, from the id in the third argument on,
/// and removes the member if nothing is. Answers where the next page starts, or nothing.
pub(crate) const LEAVE: &str = "\
local page = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', 500, ARGV[2])
if #page == 0 then
  if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
  end
  return false
end
local ids = {}
for i, pending in ipairs(page) do
  ids[i] = pending[1]
end
local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ids)}
claim[#claim + 1] = 'TIME'
claim[#claim + 1] = 0
claim[#claim + 1] = 'JUSTID'
redis.call(unpack(claim))
return '(' .. ids[#ids]
";

/// Removes the members that have nothing pending and received nothing for the time in the third
/// argument, in milliseconds. Answers how many.
pub(crate) const REMOVE_STALE: &str = "\
local removed = 0
for _, member in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local known = {}
  for i = 1, #member, 2 do
    known[member[i]] = member[i + 1]
  end
  if known.pending == 0 and known.idle > tonumber(ARGV[3]) and known.name ~= ARGV[2] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], known.name)
    removed = removed + 1
  end
end
return removed
";

/// Answers the name of a member that is there: the server has heard of it within the milliseconds
/// in the second argument. One that has left stays while something of its is pending, all of which
/// it has released: it was touched last in 1970. Answers nothing if there is none, or no group.
pub(crate) const LIVING: &str = "\
local function has_left(name)
  local start = '-'
  while true do
    local page = redis.call('XPENDING', KEYS[1], ARGV[1], start, '+', 500, name)
    if #page == 0 then
      return start ~= '-'
    end
    for _, pending in ipairs(page) do
      if pending[3] < 300000000000 then
        return false
      end
    end
    start = '(' .. page[#page][1]
  end
end
local members = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if members.err then
  return false
end
for _, member in ipairs(members) do
  local known = {}
  for i = 1, #member, 2 do
    known[member[i]] = member[i + 1]
  end
  if known.idle < tonumber(ARGV[2]) and not has_left(known.name) then
    return known.name
  end
end
return false
";

/// Makes a group anew, to get what is behind the id in the second argument. What was pending is
/// forgotten.
pub(crate) const MOVE: &str = "\
redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
return redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2])
";

/// Makes a stream without entries, by a group with the name in the first argument that is there
/// for this one step.
pub(crate) const CREATE: &str = "\
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '$', 'MKSTREAM')
return redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
";

/// Counts a page of up to 1,000 entries behind the id in the first argument. Answers the count
/// and the last id.
pub(crate) const COUNT_AFTER: &str = "\
local page = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1000)
if #page == 0 then
  return {0, ARGV[1]}
end
return {#page, page[#page][1]}
";

/// Appends entries to streams, all or none. Takes for each the stream's number among the keys, the
/// count of the arguments of its `XADD` behind the key, and these. Answers the ids; if one can't be
/// written, takes back what was, and answers its number, counted from 0, and the error.
///
/// A server that is out of memory refuses it before its first write, and not later.
pub(crate) const APPEND_ALL: &str = "\
local ids, streams, made = {}, {}, {}
local at = 1
while at <= #ARGV do
  local key, count = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 1])
  if redis.call('EXISTS', key) == 0 then
    made[key] = true
  end
  local id = redis.pcall('XADD', key, unpack(ARGV, at + 2, at + 1 + count))
  if type(id) == 'table' then
    for i, added in ipairs(ids) do
      redis.call('XDEL', streams[i], added)
    end
    for stream in pairs(made) do
      redis.call('DEL', stream)
    end
    return {#ids, id.err}
  end
  ids[#ids + 1] = id
  streams[#ids] = key
  at = at + 2 + count
end
return ids
";

/// Notes that a member of a group is there, for so many milliseconds, and answers who is.
pub(crate) const MEMBERS: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now))
redis.call('PEXPIRE', KEYS[1], string.format('%d', ARGV[2] * 10))
return redis.call('ZRANGE', KEYS[1], 0, -1)
";

/// Takes the lease of a stream (the second key), unless somebody has it, and claims all that is
/// pending for others, so that none of them can settle it any more. Takes the group, the member, what
/// is to stand in the lease, and for how many milliseconds. Answers behind which entry new ones
/// follow and how many of the pending ones were deleted, or nothing.
pub(crate) const ACQUIRE: &str = "\
if redis.call('EXISTS', KEYS[2]) == 1 then
  return false
end
local last
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local known = {}
    for i = 1, #group, 2 do
      known[group[i]] = group[i + 1]
    end
    if known.name == ARGV[1] then
      last = known['last-delivered-id']
    end
  end
end
if not last then
  return redis.error_reply('NOGROUP the group is not there')
end
local start, lost = '-', 0
while true do
  local page = redis.call('XPENDING', KEYS[1], ARGV[1], start, '+', 500)
  if #page == 0 then
    break
  end
  local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0}
  for _, pending in ipairs(page) do
    if pending[2] ~= ARGV[2] then
      claim[#claim + 1] = pending[1]
    end
  end
  local count = #claim - 5
  if count > 0 then
    claim[#claim + 1] = 'JUSTID'
    lost = lost + count - #redis.call(unpack(claim))
  end
  start = '(' .. page[#page][1]
end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return {last, lost}
";

/// Keeps the lease of a stream (the second key) for so many milliseconds more, if what stands in it
/// is ours. Answers 1, or 0.
pub(crate) const RENEW: &str = "\
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
";

/// Ends the lease of a stream (the second key), if what stands in it is ours, and removes the member
/// if nothing is pending for it.
pub(crate) const GIVE_UP: &str = "\
if redis.call('GET', KEYS[2]) ~= ARGV[3] then
  return 0
end
redis.call('DEL', KEYS[2])
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if not pending.err and #pending == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return 1
";

/// The code of the error that says that the lease is not ours any more.
pub(crate) const FENCED: &str = "FENCED";

/// Reads a stream as a member of a group, if the lease (the second key) is ours. Takes the group, the
/// member, what stands in the lease, and how many entries.
pub(crate) const READ_LEASED: &str = "\
if redis.call('GET', KEYS[2]) ~= ARGV[3] then
  return redis.error_reply('FENCED the lease is not ours any more')
end
return redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[4], 'STREAMS', KEYS[1], '>')
";

/// Claims what has been idle, if the lease (the second key) is ours. Takes the group, the member,
/// what stands in the lease, and the rest of the arguments of `XAUTOCLAIM`.
pub(crate) const CLAIM_LEASED: &str = "\
if redis.call('GET', KEYS[2]) ~= ARGV[3] then
  return redis.error_reply('FENCED the lease is not ours any more')
end
return redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], unpack(ARGV, 4))
";

/// Acknowledges entries: all of them if the lease (the second key) is ours, or else those that are
/// the member's. Takes the group, the member, what stands in the lease, and the ids. Answers a
/// [`Possession`] for each.
pub(crate) const ACK_LEASED: &str = "\
local results = {}
local ours = redis.call('GET', KEYS[2]) == ARGV[3]
if ours then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 4))
end
for i = 4, #ARGV do
  local id = ARGV[i]
  local pending = not ours and redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if ours then
    results[i - 3] = 1
  elseif not pending then
    results[i - 3] = 2
  elseif pending[2] ~= ARGV[2] then
    results[i - 3] = 0
  else
    redis.call('XACK', KEYS[1], ARGV[1], id)
    results[i - 3] = 1
  end
end
return results
";

/// Whose an entry is, as the scripts answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Possession {
    /// Another member's. Nothing was done.
    Foreign,
    /// The member's. It was done.
    Own,
    /// Nobody's: acknowledged before, or deleted.
    Gone,
}

impl Possession {
    pub(crate) fn read(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Foreign),
            1 => Some(Self::Own),
            2 => Some(Self::Gone),
            _ => None,
        }
    }
}

/// The call of a script on a stream.
pub(crate) fn call(script: &str, stream: &str, arguments: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    command.arg("EVAL").arg(script).arg(1).arg(stream);
    for argument in arguments {
        command.arg(*argument);
    }
    command
}

/// A command on a stream.
pub(crate) fn on(command: &str, stream: &str, arguments: &[&str]) -> Cmd {
    let mut built = Cmd::new();
    built.arg(command).arg(stream);
    for argument in arguments {
        built.arg(*argument);
    }
    built
}

/// Adds the ids of entries to a command.
pub(crate) fn push_ids(command: &mut Cmd, ids: impl IntoIterator<Item = EntryId>) {
    use std::fmt::Write;
    let mut text = String::with_capacity(32);
    for id in ids {
        text.clear();
        write!(text, "{id}").expect("writing into a string does not fail");
        command.arg(text.as_str());
    }
}
