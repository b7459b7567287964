HUGGING_FACE_HUB_TOKEN="${HF_TOKEN-}" docker run --rm \
    --name tgi \
    --gpus all \
    --shm-size 1g \
    -p 8080:8080 \
    -v "$PWD"/data:/data \
    -e MODEL_ID=HuggingFaceH4/zephyr-7b-beta \
    -e NUM_SHARD=1 \
    -e MAX_INPUT_TOKENS=2817 \
    -e MAX_TOTAL_TOKENS=3841 \
    -e MAX_BATCH_PREFILL_TOKENS=2817 \
    ${HF_TOKEN:+--env=HUGGING_FACE_HUB_TOKEN} \
    us-docker.pkg.dev/deeplearning-platform-release/gcr.io/huggingface-text-generation-inference-gpu.2.0.0
