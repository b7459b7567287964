MODEL=Qwen/Qwen2.5-7B-Instruct
MAX_TOTAL="4096"
: "${MAX_INPUT:=2048}"
docker run --gpus all ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id $MODEL --max-total-tokens $MAX_TOTAL --max-input-tokens ${MAX_INPUT}
