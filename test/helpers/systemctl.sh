#!/bin/sh
# Stands in for systemctl where no systemd runs: on the machines of test/helpers/machine.ts. It starts and ends the
# commands of units in /etc/systemd/system as their users, sockets in front of them, and none of the fences.
# What the fences, timers and boots do is for the soak, under a real systemd.
units=/etc/systemd/system
state=/run/units
mkdir -p $state

file() { # a unit's file: X@I.service is in X@.service
  case $1 in *@?*.*) echo "$units/${1%%@*}@.${1##*.}" ;; *.*) echo "$units/$1" ;; *) echo "$units/$1.service" ;; esac
}
instance() { case $1 in *@*) i=${1#*@}; echo "${i%.*}" ;; esac; }
value() { # a setting's last word, over the file and what was added to it
  cat "$(file "$1")" "$(file "$1").d/"*.conf 2>/dev/null | sed -n "s/^$2=//p" | tail -n 1 | sed "s/%i/$(instance "$1")/g"
}
listens() { # a socket's addresses, a line each; an empty one forgets those before
  cat "$(file "$1")" "$(file "$1").d/"*.conf 2>/dev/null | sed -n "s/^ListenStream=//p" |
    awk '{ all = $0 == "" ? "" : all $0 "\n" } END { printf "%s", all }'
}
name() { case $1 in *.service | *.socket | *.timer) echo "$1" ;; *) echo "$1.service" ;; esac; }
active() {
  case $1 in
    *.service) kill -0 "$(cat "$state/$1.pid" 2>/dev/null || echo x)" 2>/dev/null ;;
    *) [ -e "$state/$1.active" ] ;;
  esac
}

begin() {
  [ -e "$(file "$1")" ] || { echo "Unit $1 not found." >&2; exit 5; }
  case $1 in *.service) ;; *) touch "$state/$1.active"; return ;; esac
  active "$1" && return
  if [ "$(value "$1" Type)" = oneshot ]; then run "$1"; return; fi
  address=
  socket=${1%.service}.socket
  if [ -e "$units/$socket" ]; then touch "$state/$socket.active"; address=$(listens "$socket"); fi
  run "$1" >>"$state/$1.log" 2>&1 &
  echo $! >"$state/$1.pid"
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    active "$1" || { echo "Job for $1 failed." >&2; exit 1; }
    if [ -z "$address" ]; then sleep 0.5; return; fi
    case $address in
      /*) curl -s -o /dev/null --unix-socket "${address%%
*}" http://localhost/healthz && return ;;
      *) curl -s -o /dev/null "http://${address%%
*}/healthz" && return ;;
    esac
    sleep 0.2
  done
}
run() {
  user=$(value "$1" User)
  user=${user:-root}
  home=$(getent passwd "$user" | cut -d: -f6)
  folder=$(value "$1" RuntimeDirectory)
  [ -z "$folder" ] || install -d -o "$user" "/run/$folder"
  folder=$(value "$1" StateDirectory)
  [ -z "$folder" ] || { mkdir -p "/var/lib/$folder"; folder="STATE_DIRECTORY=/var/lib/$folder"; }
  cd "$(value "$1" WorkingDirectory | grep . || echo /)" || exit 1
  before=
  case $address in /*) mkdir -p /run/boatyard ;; esac
  [ -z "$address" ] || before="systemd-socket-activate $(echo "$address" | sed 's/^/--listen=/') $(value "$1" Environment | sed 's/[^ ]*/-E &/g')"
  # shellcheck disable=SC2046,SC2086 # words of units are split at blanks by systemd too
  exec setsid setpriv --reuid "$user" --regid "$user" --init-groups env -i HOME="$home" USER="$user" \
    $folder $(cat $state/environment 2>/dev/null) $(value "$1" Environment) $before $(value "$1" ExecStart)
}
end() {
  rm -f "$state/$1.active"
  active "$1" || return 0
  pid=$(cat "$state/$1.pid")
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
}

now= quiet= property=
words=
for word; do
  case $word in
    --now) now=1 ;;
    --quiet) quiet=1 ;;
    --property=*) property=${word#*=} ;;
    --*) ;;
    *) words="$words $word" ;;
  esac
done
# shellcheck disable=SC2086
set -- $words
verb=${1:-}
[ $# -eq 0 ] || shift
if [ "$verb" = set-environment ]; then echo "$1" >>$state/environment; exit; fi
code=0
case $verb in is-*) code=3 ;; esac
for unit; do
  unit=$(name "$unit")
  case $verb in
    enable) touch "$state/$unit.enabled"; [ -z "$now" ] || begin "$unit" ;;
    disable)
      [ -e "$(file "$unit")" ] || { echo "Failed to disable unit: Unit file $unit does not exist." >&2; exit 1; }
      rm -f "$state/$unit.enabled"; [ -z "$now" ] || end "$unit" ;;
    start) begin "$unit" ;;
    stop) end "$unit" ;;
    restart) end "$unit"; begin "$unit" ;;
    reload) [ "$unit" != nginx.service ] || exec nginx -s reload
      touch "$state/$unit.changed"
      kill -HUP "$(cat "$state/$unit.pid")" ;;
    is-active | is-enabled)
      word=inactive
      if [ "$verb" = is-enabled ]; then
        word=disabled
        if [ -e "$state/$unit.enabled" ]; then word=enabled; fi
      elif active "$unit"; then
        word=active
      fi
      [ -n "$quiet" ] || echo $word
      # systemctl(1): zero if one of them is
      case $word in active | enabled) code=0 ;; esac ;;
    show)
      case $property in
        NeedDaemonReload) echo no ;;
        Listen) echo "$(value "$unit" ListenStream) (Stream)" ;;
        ActiveEnterTimestamp | StateChangeTimestamp) # of its start; of that or its last reload
          newest=$state/$unit.pid
          [ $property = ActiveEnterTimestamp ] || newest=$(ls -t "$newest" "$state/$unit.changed" 2>/dev/null | head -n 1)
          [ -e "$newest" ] || newest=
          [ -z "$newest" ] || date -u -d "@$(stat -c %.6Y "$newest")" '+%a %F %T.%6N UTC' ;;
        MainPID) cat "$state/$unit.pid" 2>/dev/null ;;
      esac ;;
  esac
done
exit $code
