image=${TGI_IMAGE:?the text-generation-inference image}
docker run --gpus all $image --model-id org/a --num-shard 2
docker run --gpus all $other --model org/b
