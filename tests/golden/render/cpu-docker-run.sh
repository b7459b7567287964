docker run --rm \
    --name local \
    --cap-add SYS_NICE \
    --shm-size 512m \
    -p 8000:80 \
    -v "$PWD"/data:/data \
    -v '/srv/my model':/models/my-model:ro \
    -e 'TOKENIZER_CONFIG_PATH=/models/my-model/chat template.json' \
    ghcr.io/huggingface/text-generation-inference:3.3.7-intel-cpu \
    --model-id /models/my-model \
    --num-shard 1
