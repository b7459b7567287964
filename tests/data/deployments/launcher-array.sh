cmd=(
  text-generation-launcher
  --model-id "$1"   # the model
  --port 8080
)
cmd+=(--json-output)
"${cmd[@]}"
