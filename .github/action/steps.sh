# What the steps of action.yml have in common. In $WORK lies what one step leaves for the next.

# run PROGRAM [ARGUMENT ...]: its stdout is kept in $WORK/stdout, and what else it prints in
# $WORK/log; both are shown. Sets `status`, and `mark`, which nobody can guess.
run() {
  mark=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  status=0
  # What a stranger's file makes a program print is no command to the runner.
  echo "::stop-commands::$mark"
  "$@" 2>&1 > "$WORK/stdout" | tee "$WORK/log" || status=$?
  cat "$WORK/stdout"
  printf '\n::%s::\n' "$mark"
}

# summarize FILE ...: adds the ends of files to the job's summary. Indented text is shown as it is:
# no name in it can become Markdown or HTML. Lines that only tell how far the work is are left out.
summarize() {
  local file
  for file; do
    printf '\n'
    tail -c 400000 "$file" | tr '\r' '\n' |
      LC_ALL=C sed -e '/^[0-9.]* [kMGT]*B of [0-9.]* [kMGT]*B ([0-9]*%)$/d' -e 's/^/    /'
    printf '\n'
  done >> "$GITHUB_STEP_SUMMARY"
}

# give NAME VALUE: an output of the step, after a `run`. The value may have any number of lines.
give() {
  printf '%s<<%s\n%s\n%s\n' "$1" "$mark" "$2" "$mark" >> "$GITHUB_OUTPUT"
}

# sign_in: where no token is given, the Hub gives the job one that may write to this one repository
# alone. A name that the caller gave was for reading sources.
sign_in() {
  if [[ -z ${HF_TOKEN:-} || -n ${HF_OIDC_RESOURCE:-} ]]; then
    export HF_OIDC_RESOURCE=${PUSH_TO%%@*}
  fi
}
