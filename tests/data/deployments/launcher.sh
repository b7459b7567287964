MODEL=org/a
HF_HUB_OFFLINE=1 exec text-generation-launcher --model-id $MODEL --num-shard 2 || exit 1
