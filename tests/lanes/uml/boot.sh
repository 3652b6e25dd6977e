#!/bin/bash
# boot.sh [-m MEMORY] [-t SECONDS] [-d DISK_SIZE] [-n NUMBER] -- COMMAND [ARGUMENT]...
#
# Runs COMMAND as root inside a user-mode Linux kernel. The guest sees the host's files, its own changes to them go to memory and
# are gone with it; with -d it has an empty disk of that size at /dev/ubda. Output and exit status are those of COMMAND.
# 124: not finished within SECONDS; 125: the guest did not come up or died.
# -n: the guest is host NUMBER of a network, guestNUMBER at 10.77.0.NUMBER; standard input is its cable, one end of a pair of Unix
# datagram sockets. SIGTERM to the process group is its power switch: nothing in it is shut down.
# Needs the Debian package user-mode-linux and a C compiler; no rights on the host.
set -u
here=$(cd "$(dirname "$0")" && pwd)
memory=768M seconds=600 disk= number=
while [ $# -gt 0 ]; do
  case $1 in
  -m) memory=$2; shift 2 ;;
  -t) seconds=$2; shift 2 ;;
  -d) disk=$2; shift 2 ;;
  -n) number=$2; shift 2 ;;
  --) shift; break ;;
  *) echo "boot.sh: what is $1?" >&2; exit 2 ;;
  esac
done
[ $# -gt 0 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
command -v linux.uml >/dev/null || { echo "linux.uml is not installed: apt-get install user-mode-linux (or run scripts/setup test)" >&2; exit 127; }

run=$(mktemp -d "${TMPDIR:-/tmp}/scoria-uml.XXXXXX")
trap 'rm -rf "$run"' EXIT
cp "$here/init.sh" "$run/init"
chmod 755 "$run/init"
declare -px >"$run/environment" # the guest's command gets the caller's environment
printf '%q ' "$@" >"$run/command"
printf '%q' "$PWD" >"$run/directory"
printf '%s' "$number" >"$run/number"

# The guest's memory is a file that must be executable: /dev/shm is memory on the host too, where it allows that.
scratch=/dev/shm
mount_options=$(findmnt -no OPTIONS --target "$scratch" 2>/dev/null) || mount_options=noexec
case ,$mount_options, in *,noexec,*) scratch=$run ;; esac

# The disk lies beside it: nothing on it outlives the guest, so it need not wait for the host's disk. Its name is removed at
# once: it goes with the last process that has it open, however that ends.
devices=()
if [ -n "$disk" ]; then
  file=$(mktemp "$scratch/scoria-uml.XXXXXX") && truncate -s "$disk" "$file" && exec 9<>"$file" || exit 125
  rm "$file"
  devices+=(ubd0=/proc/self/fd/9)
fi
[ -z "$number" ] || { exec 8<&0; devices+=(vec0:transport=fd,fd=8); }

cc -O2 -Wall -shared -fPIC -o "$run/xstate.so" "$here/xstate.c" || exit 125

# nohz=off, highres=off: a clock that ticks. Otherwise each tick is ordered by the one before, and when the host is busy the signal of
# one may get lost: then no timer of the guest ever runs out again, and it spins for ever.
TMPDIR=$scratch LD_PRELOAD=$run/xstate.so timeout --foreground --kill-after=5 "$seconds" \
  linux.uml umid="${run##*.}" uml_dir="$run/" mem="$memory" rootfstype=hostfs rootflags=/ ro init="$run/init" ctl="$run" \
  "${devices[@]}" nohz=off highres=off quiet loglevel=2 panic=-1 con=null con0=null,fd:1 con1=null,fd:1 </dev/null 2>"$run/kernel"
status=$?
[ -s "$run/status" ] && exit "$(cat "$run/status")"
if [ $status = 124 ] || [ $status = 137 ]; then
  echo "boot.sh: not finished within $seconds s" >&2
  exit 124
fi
echo "boot.sh: the guest ended ($status) before the command did; its kernel's last words:" >&2
tail -20 "$run/kernel" >&2
exit 125
