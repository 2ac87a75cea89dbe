#!/usr/bin/env bash
# What tpu_vm.sh runs on each worker. The run outlives the ssh connection: when the connection breaks, gcloud
# reconnects and repeats its command, which then follows the run instead of starting another.
#
#   launch/tpu_worker.sh start COMMAND...   start it, or follow it if it is running; exit with its exit code
#   launch/tpu_worker.sh stop               send it SIGTERM
set -euo pipefail

# Lost when the machine restarts, as the processes are.
state=${TMPDIR:-/tmp}/delrec-$(id -u)

running() {
  [[ -s $state.pid ]] && read -r keeper run <"$state.pid" && kill -0 "$keeper" 2>/dev/null
}

case ${1:-} in
  start)
    shift
    if running; then
      echo "tpu_worker.sh: $(hostname): following the run in progress (process $run)"
    else
      rm -f "$state.pid" "$state.code" "$state.log"
      # The keeper stays to record how the run ended. The command's words are passed as its arguments.
      # shellcheck disable=SC2016
      nohup bash -c 'state=$1; shift; "$@" & echo "$$ $!" >"$state.new"; mv "$state.new" "$state.pid"
        code=0; wait $! || code=$?; echo "$code" >"$state.code"' keeper "$state" "$@" \
        >"$state.log" 2>&1 </dev/null &
      until [[ -s $state.pid ]]; do sleep 0.1; done
      read -r keeper run <"$state.pid"
    fi
    tail -n +1 -f --pid="$keeper" "$state.log"
    exit "$(cat "$state.code")"
    ;;
  stop)
    if running; then
      kill -TERM "$run"
      echo "tpu_worker.sh: $(hostname): sent SIGTERM to process $run"
    else
      echo "tpu_worker.sh: $(hostname): nothing runs"
    fi
    ;;
  *)
    echo "tpu_worker.sh: '${1:-}': use start COMMAND... or stop" >&2
    exit 2
    ;;
esac
