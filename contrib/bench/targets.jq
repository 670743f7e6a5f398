# From the medians, one line for each target: what it says, what is wanted, what was measured (null: that
# was not), and whether it is met. All but counts are ratios within one run.

. as $all
| def of($group; $workload; $subject):
    first($all[] | select(.group == $group and .workload == $workload and .subject == $subject)) // null;
  def value($group; $workload; $subject): of($group; $workload; $subject) | .value?;
  # What many have: the best of them.
  def best($group; $workload; $subjects):
    [$subjects[] as $s | value($group; $workload; $s) | select(. != null)] | max;
  def over($a; $b): if $a == null or $b == null or $b == 0 then null else $a / $b end;
  def target($what; $op; $wanted; $measured):
    {$what, $op, $wanted, $measured,
     met: (if $measured == null then null elif $op == ">=" then $measured >= $wanted else $measured <= $wanted end)};
  def groups($prefix): [$all[].group | select(startswith($prefix))] | unique[];
  def s3backer: ["s3backer", "s3backer-4k"];

  (groups("store, ") as $g
    | ("random write 4 KiB, direct, depth 16, flush" | of($g; .; "s3vol")) as $random
    | ("4 KiB write + fsync, threads: 1" | of($g; .; "s3vol")) as $fsync
    | target("\($g): 4 KiB write + fsync, bucket: requests for each"; "<="; 1.01; over($fsync.requests?; $fsync.ops?)),
      target("\($g): the same: time against a bare PUT of 8 KiB"; "<="; 1.15;
        over(value($g; $fsync.workload?; "bare"); $fsync.value?)),
      target("\($g): 4 KiB write + fsync, cache, loop: rate against the plain file's"; ">="; 0.5;
        over(value($g; "4 KiB write + fsync, threads: 1"; "s3vol-cache"); value($g; "4 KiB write + fsync, threads: 1"; "plain"))),
      target("\($g): the same, 8 threads"; ">="; 0.5;
        over(value($g; "4 KiB write + fsync, threads: 8"; "s3vol-cache"); value($g; "4 KiB write + fsync, threads: 8"; "plain"))),
      target("\($g): random 4 KiB writes, one flush: bytes up for each written"; "<="; 1.1; over($random.bytes_up?; $random.moved?)),
      (if $g == "store, s3d-far" then
        target("\($g): the same: speed against s3backer's"; ">="; 10; over($random.value?; best($g; $random.workload?; s3backer)))
       else empty end),
      ("sequential write, flush", "sequential read, cold" | . as $w
        | target("\($g): \($w): against the bare server, as many connections"; ">="; 0.9; over(value($g; $w; "s3vol"); value($g; $w; "bare"))),
          target("\($g): \($w): against s3backer"; ">="; 2; over(value($g; $w; "s3vol"); best($g; $w; s3backer)))),
      ("random read 4 KiB, cold, depth 16" as $w
        | target("\($g): \($w): against bare ranged GETs"; ">="; 0.9; over(value($g; $w; "s3vol"); value($g; $w; "bare"))))),
  (groups("path, ") as $g
    | [$all[] | select(.group == $g).workload] | unique[] as $w
    | target("\($g): \($w): against a bare FUSE file"; ">="; 0.9; over(value($g; $w; "s3vol"); value($g; $w; "barefuse-direct")))),
  (groups("NBD, a mounted") as $g
    | [$all[] | select(.group == $g).workload] | unique[] as $w
    | target("\($g): \($w): against the better of nbdkit and qemu-nbd"; ">="; 1;
        over(value($g; $w; "s3vol-nbd"); best($g; $w; ["nbdkit", "qemu-nbd"])))),
  ($all[] | select(.group | startswith("big, "))
    | if .workload | startswith("mount, cold") then
        target("\(.workload): seconds, less the transfer at 100 MB/s"; "<="; 2; .value - (.bytes_down // 0) / 1e8)
      elif .workload | startswith("mount, warm") then target("\(.workload): seconds"; "<="; 0.2; .value)
      elif .workload | test("^one block of .* chunks") then
        target("memory at most in all, \(.ops) chunks cached, less 100 bytes for each: MiB"; "<="; 64; (.peak_bytes - 100 * .ops) / 1048576)
      else empty end)
