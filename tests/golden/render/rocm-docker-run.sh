HF_TOKEN="${MY_TOKEN-}" docker run --rm \
    --name qwen \
    --device /dev/kfd \
    --device /dev/dri \
    --cap-add SYS_PTRACE \
    --security-opt seccomp=unconfined \
    --group-add video \
    --ipc host \
    --shm-size 256g \
    -p 8080:80 \
    -v tgi-weights:/data \
    -e ROCR_VISIBLE_DEVICES=3 \
    ${MY_TOKEN:+--env=HF_TOKEN} \
    ghcr.io/huggingface/text-generation-inference:3.3.7-rocm \
    --model-id Qwen/Qwen2.5-7B-Instruct \
    --num-shard 1
