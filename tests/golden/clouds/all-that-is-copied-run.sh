HF_TOKEN="${MINE-}" docker run --rm \
    --name tgi \
    --gpus all \
    --shm-size 1g \
    -p 9000:8080 \
    -v weights:/data \
    -v '/srv/a b':/adapters:ro \
    -e 'A=x y'"'"'$z`"\' \
    -e LOG_LEVEL=info \
    -e MAX_BATCH_SIZE=4 \
    -e HF_MODEL_ID=Qwen/Qwen2.5-7B-Instruct \
    -e SM_NUM_GPUS=1 \
    -e HF_MODEL_QUANTIZE=fp8 \
    -e HF_MODEL_TRUST_REMOTE_CODE=true \
    -e MAX_INPUT_TOKENS=31744 \
    -e MAX_TOTAL_TOKENS=32768 \
    -e MAX_BATCH_PREFILL_TOKENS=8122 \
    -e CUDA_GRAPHS=1,2 \
    -e MAX_CONCURRENT_REQUESTS=64 \
    -e 'TOKENIZER_CONFIG_PATH=/a b/*' \
    ${MINE:+--env=HF_TOKEN} \
    763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.7.0-tgi3.3.6-gpu-py311-cu124-ubuntu22.04-v2.1
